#!/usr/bin/env bash
# Shows the whole way with the small chat model of this repository: what is in it, what the compiler fuses, a bundle,
# and answers. Usage: examples/demo.sh PATH/TO/sinter
set -euo pipefail
cd "$(dirname "$0")/.."
sinter=$1
model=examples/tiny_chat/model
bundle=target/demo/tiny_chat
say() { printf '\n\033[1m$ sinter %s\033[0m\n' "$*"; }

say inspect "$model"
"$sinter" inspect "$model"
say explain "$model"
"$sinter" explain "$model" | sed -n '1,40p'
rm -rf "$bundle" && mkdir -p "$(dirname "$bundle")"
say compile "$model" -o "$bundle"
"$sinter" compile "$model" -o "$bundle"
"$sinter" verify "$bundle"
for prompt in "Hello! How are you today?" "What is the capital of France?" "What is 17 plus 25?"; do
	say run "$bundle" "\"$prompt\""
	"$sinter" run "$bundle" "$prompt" --max-tokens 48
done
printf '\nChat with it: %s chat %s\n' "$sinter" "$bundle"
