//! `sinter quantize`: a quantised copy of a model directory.

use crate::UsageError;
use crate::checkpoint::Checkpoint;
use crate::cli::{QuantFormatArg, QuantizeArgs};
use crate::environment::Environment;
use crate::output::{Output, bytes, rows};
use crate::quantize::{Format, Rounding, quantise};
use anyhow::Result;
use serde_json::json;

pub(super) fn run(args: &QuantizeArgs, env: &Environment, output: &Output) -> Result<()> {
    let rounding = rounding(args)?;
    let checkpoint = Checkpoint::open(&args.model, env, output)?;
    let report = quantise(&checkpoint, &rounding, &args.output)?;
    report
        .left
        .iter()
        .for_each(|name| output.note(format!("`{name}` stays as it is: its columns are no whole groups")));
    let worst = report.matrices.iter().max_by(|a, b| a.error.total_cmp(&b.error));
    let mean =
        report.matrices.iter().map(|matrix| matrix.error).sum::<f64>() / report.matrices.len().max(1) as f64;
    let value = json!({ "out": args.output, "mean_error": mean, "report": report });
    output.result(&value, || {
        let mut table = vec![
            ("written", args.output.display().to_string()),
            ("tensors", format!("{}, before {}", bytes(report.after), bytes(report.before))),
            ("matrices", report.matrices.len().to_string()),
            ("mean error", format!("{:.2} %", mean * 100.0)),
        ];
        if let Some(worst) = worst {
            table.push(("greatest", format!("{:.2} % in {}", worst.error * 100.0, worst.name)));
        }
        let mut text = rows(&table);
        if args.layers {
            for matrix in &report.matrices {
                text.push_str(&format!("\n{:7.3} %  {}", matrix.error * 100.0, matrix.name));
            }
        }
        text
    })
}

fn rounding(args: &QuantizeArgs) -> Result<Rounding> {
    let (format, usual) = match args.format {
        QuantFormatArg::Int8 => (Format::Int8, None),
        QuantFormatArg::Int4 => (Format::Int4, Some(32)),
        QuantFormatArg::Fp8 => (Format::Fp8, None),
    };
    if format == Format::Fp8 && (args.asymmetric || args.group.is_some()) {
        return Err(UsageError("fp8 has one scale a row, without --group and --asymmetric".into()).into());
    }
    let group = args.group.map(usize::from).or(usual);
    Ok(Rounding { format, group, asymmetric: args.asymmetric })
}
