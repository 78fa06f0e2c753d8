//! Dequantise expressions, and which of them are codes with scales and offsets for runs of columns.

use sinter_ir::*;

fn graph(lines: &str) -> Graph {
    let last = lines.lines().count() - 1;
    Graph::parse(&format!("graph @w {{\n{lines}\n  return \"w\" %{last}\n}}")).unwrap()
}

fn layout(lines: &str) -> Option<String> {
    let graph = graph(lines);
    dequantised(&graph, graph.outputs[0].1).map(|found| found.codes.to_string())
}

#[test]
fn codes_with_scales_are_found() {
    for (wanted, lines) in [
        // A scale a row, codes with sign, and one rounding at the end.
        (
            "codes8x16",
            r#"%0 = param["q", (6, 16), i8]
            %1 = cast[f32] %0
            %2 = param["s", (6, 1), f32]
            %3 = mul %1, %2
            %4 = cast[bf16] %3"#,
        ),
        // Groups with zeros.
        (
            "codes4x8z",
            r#"%0 = param["q", (6, 2, 8), u8]
            %1 = const[15.0, u8]
            %2 = bitand %0, %1
            %3 = cast[f32] %2
            %4 = param["z", (6, 2, 1), u8]
            %5 = bitand %4, %1
            %6 = cast[f32] %5
            %7 = sub %3, %6
            %8 = param["s", (6, 2, 1), f32]
            %9 = mul %8, %7
            %10 = reshape[(6, 16)] %9"#,
        ),
        // A number in the middle that is the same everywhere, and a scale for all.
        (
            "codes4x16",
            r#"%0 = param["q", (6, 16), u8]
            %1 = const[15.0, u8]
            %2 = bitand %0, %1
            %3 = cast[f32] %2
            %4 = const[8.0, f32]
            %5 = sub %3, %4
            %6 = param["s", (1), f32]
            %7 = reshape[()] %6
            %8 = mul %5, %7"#,
        ),
        // A number that is taken off products.
        (
            "codes8x8m",
            r#"%0 = param["q", (12, 8), u8]
            %1 = cast[f32] %0
            %2 = param["s", (12, 1), f32]
            %3 = mul %1, %2
            %4 = param["m", (12, 1), f32]
            %5 = sub %3, %4
            %6 = reshape[(6, 16)] %5"#,
        ),
        // Joined rows.
        (
            "codes8x16",
            r#"%0 = param["q", (6, 16), i8]
            %1 = cast[f32] %0
            %2 = param["s", (6, 1), f32]
            %3 = mul %1, %2
            %4 = concat[0] %3, %3"#,
        ),
    ] {
        assert_eq!(layout(lines).as_deref(), Some(wanted), "{lines}");
        assert_eq!(Codes::parse(wanted).map(|codes| codes.to_string()).as_deref(), Some(wanted));
    }
}

#[test]
fn other_expressions_are_not() {
    for lines in [
        // Numbers that need not be whole.
        r#"%0 = param["q", (6, 16), f32]
        %1 = param["s", (6, 1), f32]
        %2 = mul %0, %1"#,
        // A factor for each column.
        r#"%0 = param["q", (6, 16), i8]
        %1 = cast[f32] %0
        %2 = param["s", (1, 16), f32]
        %3 = mul %1, %2"#,
        // Groups of four.
        r#"%0 = param["q", (24, 4), i8]
        %1 = cast[f32] %0
        %2 = param["s", (24, 1), f32]
        %3 = mul %1, %2
        %4 = reshape[(6, 16)] %3"#,
        // A rounding before the last one.
        r#"%0 = param["q", (6, 16), i8]
        %1 = cast[f32] %0
        %2 = param["s", (6, 1), f32]
        %3 = mul %1, %2
        %4 = cast[bf16] %3
        %5 = cast[f32] %4"#,
        // Differences without sign, which wrap around below 0.
        r#"%0 = param["q", (6, 16), u8]
        %1 = cast[u32] %0
        %2 = const[128.0, u32]
        %3 = sub %1, %2
        %4 = cast[f32] %3
        %5 = param["s", (6, 1), f32]
        %6 = mul %4, %5"#,
        // Rows of two forms.
        r#"%0 = param["q", (6, 16), i8]
        %1 = cast[f32] %0
        %2 = param["s", (6, 1), f32]
        %3 = mul %1, %2
        %4 = param["w", (6, 16), f32]
        %5 = concat[0] %3, %4"#,
    ] {
        assert_eq!(layout(lines), None, "{lines}");
    }
    for text in ["codes4x12", "codes5x32", "codes4x0", "codes4", "codes8x32q"] {
        assert_eq!(Codes::parse(text), None, "{text}");
    }
}
