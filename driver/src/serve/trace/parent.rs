//! The span that a client names as the parent of its request (W3C Trace Context, w3.org/TR/trace-context).

use super::super::sampling::random;
use axum::http::HeaderMap;

/// Characters of `tracestate` that are passed on, as the recommendation asks for at least.
const STATE: usize = 512;

/// Where a span stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parent {
    /// 32 hexadecimal digits.
    pub(super) trace: String,
    /// 16 hexadecimal digits; none of a span that begins its trace.
    pub(super) span: Option<String>,
    /// What vendors pass along.
    pub(super) state: String,
    /// Whether the client wants the span to be kept.
    pub(super) sampled: bool,
}

impl Parent {
    /// The parent that the headers name; a trace of its own if they name none, or say it wrongly.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let Some((trace, span, flags)) = text("traceparent").and_then(parse) else {
            let trace = format!("{:016x}{:016x}", random(), random().max(1));
            return Self { trace, span: None, state: String::new(), sampled: true };
        };
        let state = text("tracestate").filter(|state| state.len() <= STATE).unwrap_or_default();
        Self { trace: trace.into(), span: Some(span.into()), state: state.into(), sampled: flags & 1 == 1 }
    }
}

/// Trace, span and flags of `00-TRACE-SPAN-FLAGS`; later versions may have more after them.
fn parse(text: &str) -> Option<(&str, &str, u8)> {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        parts.next().filter(|part| part.len() == length && part.bytes().all(lower))
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let whole = version != "00" || parts.next().is_none();
    (version != "ff" && whole && !zero(trace) && !zero(span)).then_some((
        trace,
        span,
        u8::from_str_radix(flags, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn of(parent: &str) -> Parent {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", parent.parse().unwrap());
        headers.insert("tracestate", "a=b".parse().unwrap());
        Parent::of(&headers)
    }

    #[test]
    fn a_parent_is_taken_as_it_stands() {
        let wanted =
            Parent { trace: TRACE.into(), span: Some(SPAN.into()), state: "a=b".into(), sampled: true };
        assert_eq!(of(&format!("00-{TRACE}-{SPAN}-01")), wanted);
        assert_eq!(of(&format!("cc-{TRACE}-{SPAN}-03-what-comes-later")), wanted);
        assert!(!of(&format!("00-{TRACE}-{SPAN}-00")).sampled);
    }

    #[test]
    fn what_is_no_parent_begins_a_trace() {
        let (nought, upper) = ("0".repeat(32), TRACE.to_uppercase());
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{nought}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-zz"),
        ] {
            let found = of(&wrong);
            assert!(found.span.is_none() && found.sampled && found.state.is_empty(), "{wrong}");
            assert!(found.trace.len() == 32 && found.trace != TRACE, "{wrong}");
        }
    }
}
