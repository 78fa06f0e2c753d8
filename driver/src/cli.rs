//! The grammar of the command line.

pub mod bench;
pub mod tune;

pub use bench::BenchArgs;
pub use tune::TuneArgs;

use crate::device::{BuildTarget, DeviceArg, words};
use crate::serve::log::LogStyle;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use sinter_codegen_schedule::roofline::{GPUS, Gpu};
use sinter_ir::Target;
use std::path::PathBuf;
use std::time::Duration;

/// Compiles transformer models and runs them.
///
/// MODEL is a directory with config.json and safetensors, a GGUF file, or a hub id that the local hub cache holds; BUNDLE
/// is what `sinter compile` wrote. Results go to stdout, everything else to stderr. The exit code is 0 when the command did what
/// was asked, 2 for bad usage, and 1 with a reason otherwise.
#[derive(Debug, Parser)]
#[command(name = "sinter", version, max_term_width = 110)]
pub struct Cli {
    /// Give results as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compile a model into a bundle that starts without compiling or packing.
    Compile(CompileArgs),
    /// Continue a prompt.
    Run(RunArgs),
    /// Talk with a model.
    Chat(ChatArgs),
    /// Answer requests over HTTP, as OpenAI's interface does.
    Serve(ServeArgs),
    /// Turn texts into vectors.
    Embed(EmbedArgs),
    /// Score a text, or documents for a query, with an encoder's head.
    Score(ScoreArgs),
    /// Show how a text becomes tokens.
    Tokenize(TokenizeArgs),
    /// Write a model's logits, or an encoder's hidden values, to a safetensors file.
    Logits(LogitsArgs),
    /// Measure how well a model predicts a text.
    Perplexity(PerplexityArgs),
    /// Measure speed, with a check of the results beside it.
    Bench(BenchArgs),
    /// Measure how each kernel is run best on this machine, and keep it.
    Tune(TuneArgs),
    /// Show what was fused, by which rules, and what was not and why.
    Explain(ExplainArgs),
    /// Show what a model or a bundle holds.
    Inspect(InspectArgs),
    /// Write a quantised copy of a model, in the layout of compressed-tensors.
    Quantize(QuantizeArgs),
    /// Check every byte of a bundle against its manifest.
    Verify(VerifyArgs),
    /// Show what this machine offers and what could be better.
    Doctor,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Element types that a model can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DTypeArg {
    /// bf16 where the checkpoint and the processor have it, f32 otherwise.
    Auto,
    /// 32-bit floats.
    F32,
    /// Brain floats of 16 bits.
    Bf16,
}

/// Quantisations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantArg {
    /// Weights as they are.
    None,
    /// 8 bits a weight.
    Int8,
    /// 4 bits a weight.
    Int4,
}

/// What activations are before products with quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationsArg {
    /// int8 with --quant on the host, exact otherwise.
    Auto,
    /// Of the build's type: the products are those of the dequantised weights.
    Exact,
    /// 8 bits, with a scale for each token: faster, and rounded once more.
    Int8,
}

/// What the KV cache keeps of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvCacheArg {
    /// Numbers of the build's type.
    Auto,
    /// Whole numbers of 8 bits, one scale for each token and head.
    Int8,
    /// Whole numbers of 4 bits, one scale for each token and head.
    Int4,
    /// Floats of 8 bits (E4M3), one scale for each token and head.
    Fp8,
}

/// What weights are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantFormatArg {
    /// Whole numbers of 8 bits, one scale a row.
    Int8,
    /// Whole numbers of 4 bits, one scale for each group of columns.
    Int4,
    /// Floats of 8 bits (E4M3), one scale a row.
    Fp8,
}

/// `sinter quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// The model.
    pub model: String,
    /// The directory to write; it must not exist.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// What weights are rounded to.
    #[arg(long, value_enum)]
    pub format: QuantFormatArg,
    /// Columns that share a scale: 32, 64, 128, or `row` for a whole row; 32 for int4 and a row for int8 if left out.
    #[arg(long, value_name = "N|row", value_parser = group_size)]
    pub group: Option<GroupArg>,
    /// A zero beside each scale, so that codes cover a group's own range. Sinter reads it; transformers 5.23 does not.
    #[arg(long)]
    pub asymmetric: bool,
    /// How codes are chosen; gptq and awq want --calibration.
    #[arg(long, value_enum, default_value = "rtn")]
    pub method: QuantMethodArg,
    /// A file with text like that which the model will see, special tokens and all.
    #[arg(long, value_name = "FILE", required_if_eq_any([("method", "gptq"), ("method", "awq")]))]
    pub calibration: Option<PathBuf>,
    /// Tokens of the calibration text that the model sees together; at most its context.
    #[arg(long, value_name = "N", default_value = "256", value_parser = positive)]
    pub calibration_length: usize,
    /// Tokens of the calibration text that are used at most.
    #[arg(long, value_name = "N", default_value = "32768", value_parser = positive)]
    pub calibration_tokens: usize,
    /// Round the columns with the largest inputs first (gptq).
    #[arg(long)]
    pub act_order: bool,
    /// A file of questions, a JSON object with `prompt` and `answer` on each line, that are asked before and after; may be given
    /// several times. Without questions, the last tenth of the calibration text is kept to measure perplexity on.
    #[arg(long, value_name = "FILE")]
    pub evaluate: Vec<PathBuf>,
    /// List the error of every matrix.
    #[arg(long)]
    pub layers: bool,
}

/// How the codes of weights are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum QuantMethodArg {
    /// The nearest to each number.
    Rtn,
    /// Column by column, the others making up for each, so that products change little (Frantar et al. 2022).
    Gptq,
    /// Columns with large inputs multiplied first, what computes the inputs divided, and ranges cut (Lin et al. 2023).
    Awq,
}

/// What shares a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupArg {
    /// So many columns of a row.
    Columns(u16),
    /// A whole row.
    Row,
}

fn group_size(text: &str) -> Result<GroupArg, String> {
    match text {
        "32" => Ok(GroupArg::Columns(32)),
        "64" => Ok(GroupArg::Columns(64)),
        "128" => Ok(GroupArg::Columns(128)),
        "row" => Ok(GroupArg::Row),
        _ => Err("wanted 32, 64, 128 or row".into()),
    }
}

/// Stages whose output can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmitArg {
    /// The graph of primitive operations.
    Graph,
    /// The graph of each distinct block after rewriting.
    Fused,
    /// The plan as JSON.
    Plan,
    /// The tile programs.
    Tile,
    /// MLIR of the GPU back end.
    Mlir,
    /// LLVM IR of the GPU back end.
    Llvm,
    /// PTX of the GPU back end.
    Ptx,
}

/// How a model is compiled and where it runs.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// The element type of weights and KV cache.
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: DTypeArg,
    /// Quantise the weights while they are loaded: int8 has one scale a row, int4 one for each 64 columns.
    #[arg(long, value_enum, default_value = "none")]
    pub quant: QuantArg,
    /// What activations are before products with quantised weights.
    #[arg(long, value_enum, default_value = "auto")]
    pub activations: ActivationsArg,
    /// What the KV cache keeps of keys and values: codes take less memory and are rounded once more.
    #[arg(long, value_enum, default_value = "auto")]
    pub kv_cache: KvCacheArg,
    /// The device: auto, host, cuda or cuda:N; vgpu or vgpu:TARGET is the virtual GPU, which executes the code of a GPU
    /// target on the CPU, checks every step and is slow.
    #[arg(long, default_value = "auto", value_parser = DeviceArg::parse)]
    pub device: DeviceArg,
    /// Threads; all cores if left out.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// How the next token is chosen. What is left out is taken from the model's generation_config.json.
#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    /// Tokens to generate at most; 256 if neither this nor the model says otherwise.
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Divides the logits; 0 always takes the likeliest token.
    #[arg(long, value_name = "X")]
    pub temperature: Option<f32>,
    /// Only the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Only the K likeliest tokens.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Only tokens at least this fraction as likely as the likeliest.
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Makes tokens that were seen less likely; 1 changes nothing.
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// The seed of the random numbers; the same seed gives the same text.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Ends the answer before this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Tokens of the prompt that are fed in one step; the result does not depend on it.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub chunk: usize,
}

/// `sinter compile`
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// The model.
    pub model: String,
    /// The bundle's directory; the compile cache if left out.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// What the kernels are for: host, sm_80, sm_89 or sm_90a; may be given several times.
    #[arg(long, default_value = "host", value_parser = BuildTarget::parse)]
    pub target: Vec<BuildTarget>,
    /// Print a stage instead of writing a bundle; with --output, do both.
    #[arg(long, value_enum, value_name = "STAGE")]
    pub emit: Option<EmitArg>,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The model or bundle.
    pub model: String,
    /// The prompt; `-` reads it from stdin. A model with a chat template gets it as a user's message.
    pub prompt: String,
    /// Give the prompt as it is, without the chat template.
    #[arg(long)]
    pub raw: bool,
    /// A system message before the prompt.
    #[arg(long, conflicts_with = "raw")]
    pub system: Option<String>,
    /// How to choose tokens.
    #[command(flatten)]
    pub sample: SampleArgs,
    /// What the answer must look like.
    #[command(flatten)]
    pub form: FormArgs,
    /// Who guesses tokens.
    #[command(flatten)]
    pub speculate: SpeculateArgs,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The model or bundle.
    pub model: String,
    /// A system message before the conversation.
    #[arg(long)]
    pub system: Option<String>,
    /// Tokens that the conversation may have at most; 8192 or the model's context if left out.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// How to choose tokens.
    #[command(flatten)]
    pub sample: SampleArgs,
    /// What the answer must look like.
    #[command(flatten)]
    pub form: FormArgs,
    /// Who guesses tokens.
    #[command(flatten)]
    pub speculate: SpeculateArgs,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// Who guesses the next tokens. Guesses save steps and never change an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SpeculateArg {
    /// Nobody.
    None,
    /// The text so far.
    Ngram,
    /// A small model.
    Draft,
}

/// Guesses of what comes next.
#[derive(Debug, Clone, Args)]
pub struct SpeculateArgs {
    /// Who guesses tokens. Guesses save steps and never change an answer.
    #[arg(long, value_enum, default_value = "none")]
    pub speculate: SpeculateArg,
    /// The small model that guesses; it must have the same vocabulary.
    #[arg(long, value_name = "MODEL")]
    pub draft_model: Option<String>,
    /// Tokens that are guessed at once.
    #[arg(long, value_name = "N", default_value = "5", value_parser = positive)]
    pub drafts: usize,
}

/// What an answer must look like.
#[derive(Debug, Clone, Args)]
#[group(id = "form", multiple = false)]
pub struct FormArgs {
    /// Makes the answer JSON that a schema describes: the schema, or the name of a file with it.
    #[arg(long, value_name = "SCHEMA", group = "form")]
    pub json_schema: Option<String>,
    /// Makes the answer a text that a regular expression matches.
    #[arg(long, value_name = "REGEX", group = "form")]
    pub regex: Option<String>,
    /// Makes the answer a text of a grammar in Lark's notation: the name of a file with it.
    #[arg(long, value_name = "FILE", group = "form")]
    pub grammar: Option<PathBuf>,
}

/// `sinter serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The model or bundle.
    pub model: String,
    /// The address to listen at. One that other machines can reach wants a key.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// The port to listen at; 0 takes a free one.
    #[arg(long, default_value = "8000")]
    pub port: u16,
    /// A key that requests must have; may be given several times. SINTER_API_KEY is one more.
    #[arg(long, value_name = "KEY")]
    pub api_key: Vec<String>,
    /// The name that requests use for the model; may be given several times. The last part of MODEL if left out.
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Vec<String>,
    /// Tokens of a prompt and its answer at most; the model's context if left out.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_context: Option<usize>,
    /// Sequences that are computed at once.
    #[arg(long, value_name = "N", default_value = "32", value_parser = positive)]
    pub max_sequences: usize,
    /// Tokens that are computed in one step.
    #[arg(long, value_name = "N", default_value = "512", value_parser = positive)]
    pub max_step_tokens: usize,
    /// Memory for the KV cache, as in 2GiB.
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub kv_memory: Option<u64>,
    /// Sequences that may wait before requests are refused.
    #[arg(long, value_name = "N", default_value = "512")]
    pub max_queue: u64,
    /// Tokens of prompts that may wait before requests are refused.
    #[arg(long, value_name = "N", default_value = "4194304")]
    pub max_queue_tokens: u64,
    /// Bytes of a request's body at most.
    #[arg(long, value_name = "BYTES", default_value = "4194304", value_parser = positive)]
    pub max_body: usize,
    /// Seconds that an answer may take.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub timeout: Duration,
    /// Seconds that running answers have to end after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub grace: Duration,
    /// Seconds without progress after which /health says so. A step must not take longer.
    #[arg(long, value_name = "SECONDS", default_value = "4", value_parser = seconds)]
    pub stalled_after: Duration,
    /// Who guesses tokens.
    #[command(flatten)]
    pub speculate: SpeculateArgs,
    /// Forget what was computed when its request ends.
    #[arg(long)]
    pub no_prefix_cache: bool,
    /// How the model writes calls of tools: none, or the name of a format; found in the chat template if left out.
    #[arg(long, value_name = "NAME")]
    pub tool_parser: Option<String>,
    /// How the model writes its reasoning: none, or the name of a format; found in the chat template if left out.
    #[arg(long, value_name = "NAME")]
    pub reasoning_parser: Option<String>,
    /// How the line of a request looks.
    #[arg(long, value_enum, default_value = "text")]
    pub log: LogStyle,
    /// The OpenTelemetry collector that gets a span of each request, as in http://127.0.0.1:4318.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter embed`
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// The model or bundle.
    pub model: String,
    /// The texts; `-` reads one text a line from stdin.
    #[arg(required = true)]
    pub texts: Vec<String>,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter score`
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// The model or bundle.
    pub model: String,
    /// The text, or the query if documents follow.
    pub query: String,
    /// The documents, each scored with the query.
    pub documents: Vec<String>,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter tokenize`
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The model or bundle.
    pub model: String,
    /// The text; `-` reads it from stdin.
    pub text: String,
    /// Leave out the tokens that mark the text's begin and end.
    #[arg(long)]
    pub no_special: bool,
}

/// `sinter logits`
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// The model or bundle.
    pub model: String,
    /// The token ids, separated by commas.
    #[arg(long, required = true, value_delimiter = ',', value_name = "IDS")]
    pub tokens: Vec<u32>,
    /// The safetensors file to write: `logits` [1,T,V], or `hidden` [1,T,H] of an encoder, in f32.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// 1 for each token that counts and 0 for each that does not; only for encoders. Rows of the latter are zero.
    #[arg(long, value_delimiter = ',', value_name = "BITS", value_parser = clap::value_parser!(u8).range(0..=1))]
    pub mask: Option<Vec<u8>>,
    /// Feed the last N tokens one by one through the KV cache.
    #[arg(long, value_name = "N", default_value = "0")]
    pub decode: usize,
    /// Feed the other tokens in chunks of N; all at once if left out.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub chunk: Option<usize>,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter perplexity`
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// The model or bundle.
    pub model: String,
    /// The file with the text.
    pub file: PathBuf,
    /// Tokens that are computed together, which are the context of each other; the model's context or 2048 if left out,
    /// whichever is less.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub window: Option<usize>,
    /// Tokens by which the window moves on; half a window if left out.
    #[arg(long, value_name = "N", value_parser = positive)]
    pub stride: Option<usize>,
    /// Leave out the tokens that mark the text's begin and end.
    #[arg(long)]
    pub no_special: bool,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The model.
    pub model: String,
    /// Only blocks with a kernel or pattern of this name, such as `attention`.
    pub group: Option<String>,
    /// Show how each kernel is run on the host, and what the cost model says of it.
    #[arg(long, conflicts_with_all = ["group", "proof"])]
    pub schedule: bool,
    /// Also print the proof that each rewritten block computes the same.
    #[arg(long)]
    pub proof: bool,
    /// How to compile.
    #[command(flatten)]
    pub build: BuildArgs,
}

/// `sinter inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model or bundle.
    pub model: String,
    /// Compile a model for a GPU and show the kernels: sm_80, sm_89 or sm_90a.
    #[arg(long, value_parser = gpu_target)]
    pub target: Option<Target>,
    /// The element type that it is compiled for.
    #[arg(long, value_enum, default_value = "auto", requires = "target")]
    pub dtype: DTypeArg,
    /// Show the times of this GPU alone: A100, L40S, "RTX 4090", H100 or H200.
    #[arg(long, value_name = "NAME", value_parser = gpu_name)]
    pub gpu: Option<Gpu>,
    /// Sequences of the decode step that is shown; 1 if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub sequences: Option<u64>,
    /// Positions of each sequence in that step; 1024 if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub context: Option<u64>,
    /// Tokens of the prompt that is shown; 512 if left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub prompt: Option<u64>,
    /// The assembler of CUDA, to see the registers of GPU kernels.
    #[arg(long, value_name = "FILE")]
    pub ptxas: Option<PathBuf>,
}

impl InspectArgs {
    /// Whether something was asked that only GPU kernels answer.
    pub fn asks_of_kernels(&self) -> bool {
        let numbers = [self.sequences, self.context, self.prompt];
        self.gpu.is_some() || self.ptxas.is_some() || numbers.iter().any(Option::is_some)
    }
}

fn gpu_target(name: &str) -> Result<Target, String> {
    Target::parse(name).ok_or_else(|| format!("wanted {}", words(Target::ALL)))
}

fn gpu_name(name: &str) -> Result<Gpu, String> {
    Gpu::named(name).ok_or_else(|| format!("wanted {}", words(GPUS.map(|gpu| gpu.name))))
}

/// `sinter verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The bundle.
    pub bundle: PathBuf,
}

/// A time in seconds: `30`, `0.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let found = text.parse::<f64>().ok().filter(|seconds| (0.0..=1e7).contains(seconds));
    found.map(Duration::from_secs_f64).ok_or_else(|| "wanted seconds from 0 to 10000000".into())
}

/// A number of bytes: `1073741824`, `512MiB`, `2GiB`.
fn byte_count(text: &str) -> Result<u64, String> {
    let wanted = || "wanted a number of bytes, as in 512MiB or 2GiB".to_owned();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "kib" | "k" => 10,
        "mib" | "m" => 20,
        "gib" | "g" => 30,
        _ => return Err(wanted()),
    };
    let number = number.parse::<u64>().map_err(|_| wanted())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wanted)
}

/// A number of things that there must be.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if (1..=1 << 24).contains(&number) => Ok(number),
        _ => Err("wanted a whole number from 1 to 16777216".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_take_the_values_that_the_design_names() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map_err(|error| error.exit_code());
        assert!(parse("sinter logits M --tokens 5,6,7 --out F --mask 1,1,0 --decode 2 --dtype f32").is_ok());
        assert!(parse("sinter run M P --max-tokens 3 --device cuda:1 --json --quant int4").is_ok());
        assert!(parse("sinter compile M -o D --target host --target sm_90a --emit tile").is_ok());
        for wrong in [
            "sinter",
            "sinter logits M --tokens 5,x --out F",
            "sinter run M P --device tpu",
            "sinter serve M --kv-memory 2x",
        ] {
            assert_eq!(parse(wrong).unwrap_err(), 2, "{wrong}");
        }
    }
}
