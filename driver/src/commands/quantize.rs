//! `sinter quantize`: a quantised copy of a model directory.

use crate::UsageError;
use crate::checkpoint::Checkpoint;
use crate::cli::{GroupArg, QuantFormatArg, QuantMethodArg, QuantizeArgs};
use crate::environment::Environment;
use crate::output::{Output, bytes, rows};
use crate::quantize::{
    Calibration, Examination, Format, Marks, MatrixReport, Method, Report, Rounding, quantise,
};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;

pub(super) fn run(args: &QuantizeArgs, env: &Environment, output: &Output) -> Result<()> {
    let (rounding, method) = (rounding(args)?, method(args)?);
    if args.output.exists() {
        bail!("{} exists; name a directory that does not", args.output.display());
    }
    let checkpoint = Checkpoint::open(&args.model, env, output)?;
    if !args.evaluate.is_empty() && !checkpoint.info.decoder {
        return Err(UsageError("--evaluate asks a decoder; the model is an encoder".into()).into());
    }
    let (calibration, kept) = calibration(args, method, &checkpoint)?;
    let examination = Examination::new(kept, &args.evaluate)?;
    let marks = |model: &str| match examination.is_empty() {
        true => Ok(None),
        false => examination.marks(model, env, output).map(Some),
    };
    let before = marks(&args.model)?;
    let report = quantise(&checkpoint, (&rounding, calibration.as_ref()), &args.output, output)?;
    report
        .left
        .iter()
        .for_each(|left| output.note(format!("`{}` stays as it is: {}", left.name, left.reason)));
    if rounding.group.is_some() && report.left.iter().any(|left| left.reason.contains("groups")) {
        output.note("--group row takes columns of any number");
    }
    let after = marks(&args.output.to_string_lossy())?;
    let mean = mean(&report, |matrix| Some(matrix.error)).unwrap_or(0.0);
    let products = self::mean(&report, |matrix| matrix.output_error);
    let value = json!({
        "out": args.output, "mean_error": mean, "mean_output_error": products, "report": report,
        "before": before, "after": after,
    });
    output.result(&value, || text(args, (&report, mean, products), before.as_ref().zip(after.as_ref())))
}

/// The mean of what some matrices have.
fn mean(report: &Report, number: impl Fn(&MatrixReport) -> Option<f64>) -> Option<f64> {
    let numbers: Vec<f64> = report.matrices.iter().filter_map(number).collect();
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

type Means<'a> = (&'a Report, f64, Option<f64>);

fn text(args: &QuantizeArgs, (report, mean, products): Means<'_>, marks: Option<(&Marks, &Marks)>) -> String {
    let mut table = vec![
        ("written", args.output.display().to_string()),
        ("tensors", format!("{}, before {}", bytes(report.after), bytes(report.before))),
        ("matrices", report.matrices.len().to_string()),
        ("mean error", format!("{:.2} %", mean * 100.0)),
    ];
    if let Some(worst) = report.matrices.iter().max_by(|a, b| a.error.total_cmp(&b.error)) {
        table.push(("greatest", format!("{:.2} % in {}", worst.error * 100.0, worst.name)));
    }
    if let Some(mean) = products {
        table.push(("of products", format!("{:.2} % on the calibration text", mean * 100.0)));
    }
    let mut notes: BTreeMap<&str, usize> = BTreeMap::new();
    report
        .matrices
        .iter()
        .filter_map(|matrix| matrix.note)
        .for_each(|note| *notes.entry(note).or_default() += 1);
    table.extend(notes.iter().map(|(note, count)| ("beside", format!("{count} matrices: {note}"))));
    if let Some((before, after)) = marks {
        for (was, is) in before.questions.iter().zip(&after.questions) {
            let right = format!("{}: {} of {} right, before {}", is.name, is.right, is.asked, was.right);
            let perplexity = format!("perplexity {:.4}, before {:.4}", is.perplexity, was.perplexity);
            table.push(("answers", format!("{right}; {perplexity}")));
        }
        let of = if after.questions.is_empty() { "of the text's last tenth" } else { "of all answers" };
        table.push(("perplexity", format!("{:.4} {of}, before {:.4}", after.perplexity, before.perplexity)));
    }
    let mut text = rows(&table);
    if args.layers {
        report.matrices.iter().for_each(|matrix| text.push_str(&line(matrix)));
    }
    text
}

/// A line on one matrix.
fn line(matrix: &MatrixReport) -> String {
    let products = matrix.output_error.map(|error| format!(" {:7.3} % of products", error * 100.0));
    let power = matrix.power.map(|power| format!(" (inputs to the power of {power:.2})"));
    let note = matrix.note.map(|note| format!(" ({note})"));
    let [products, power, note] = [products, power, note].map(Option::unwrap_or_default);
    format!("{:7.3} %{products}  {}{power}{note}\n", matrix.error * 100.0, matrix.name)
}

fn rounding(args: &QuantizeArgs) -> Result<Rounding> {
    let format = match args.format {
        QuantFormatArg::Int8 => Format::Int8,
        QuantFormatArg::Int4 => Format::Int4,
        QuantFormatArg::Fp8 => Format::Fp8,
    };
    if format == Format::Fp8 && (args.asymmetric || args.group.is_some()) {
        return Err(UsageError("fp8 has one scale a row, without --group and --asymmetric".into()).into());
    }
    let group = match args.group {
        Some(GroupArg::Columns(columns)) => Some(usize::from(columns)),
        Some(GroupArg::Row) => None,
        None => (format == Format::Int4).then_some(32),
    };
    Ok(Rounding { format, group, asymmetric: args.asymmetric })
}

fn method(args: &QuantizeArgs) -> Result<Method> {
    match args.method {
        QuantMethodArg::Gptq => Ok(Method::Gptq { by_size: args.act_order }),
        QuantMethodArg::Rtn | QuantMethodArg::Awq if args.act_order => {
            Err(UsageError("--act-order means nothing without --method gptq".into()).into())
        }
        QuantMethodArg::Rtn => Ok(Method::Nearest),
        QuantMethodArg::Awq => Ok(Method::Awq),
    }
}

/// The calibration text in pieces that the model sees one by one, and the part that is kept to measure on.
fn calibration(
    args: &QuantizeArgs,
    method: Method,
    checkpoint: &Checkpoint,
) -> Result<(Option<Calibration>, Vec<u32>)> {
    let Some(file) = &args.calibration else { return Ok((None, Vec::new())) };
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let tokenizer = checkpoint.model.tokenizer.as_ref();
    let tokenizer = tokenizer.context("the model has no tokenizer, which a calibration text needs")?;
    let mut tokens = tokenizer.encode(&text, true)?;
    tokens.truncate(args.calibration_tokens);
    let keeps = args.evaluate.is_empty() && checkpoint.info.decoder && checkpoint.model.spec.head.is_some();
    let kept = if keeps { tokens.split_off(tokens.len() - tokens.len() / 10) } else { Vec::new() };
    let length = args.calibration_length.min(checkpoint.info.context);
    Ok((Some(Calibration::new(method, (file, &tokens), length)?), kept))
}
