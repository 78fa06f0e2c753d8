//! How large steps and the KV cache are: from what was asked for and the memory that there is.
//!
//! A pure function, so that every case has a test. What cannot fit is refused with numbers before anything is taken.

use crate::output::bytes;
use sinter_ir::PAGE;

/// What was asked for, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Tokens of a prompt and its answer, as the model has them.
    pub model_context: usize,
    /// The same, if the user said.
    pub context: Option<usize>,
    /// Sequences at once.
    pub sequences: usize,
    /// Bytes of the KV cache, if the user said.
    pub kv_memory: Option<u64>,
    /// Bytes of the KV cache for a page of tokens.
    pub page_bytes: u64,
    /// Bytes besides weights and KV cache.
    pub other: u64,
    /// Bytes that there are besides the weights, if the system says.
    pub free: Option<u64>,
}

/// The sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Tokens of a prompt and its answer.
    pub context: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Whether the context is smaller than the model's, because there is no memory for more.
    pub cut: bool,
}

/// The sizes for a wish. Where the user says nothing, the KV cache has room for as many texts of the whole context as are
/// computed at once, but takes at most half of the memory that is free.
pub fn sizes(wish: &Wish) -> Result<Sizes, String> {
    let context = wish.context.unwrap_or(wish.model_context).min(wish.model_context).max(1);
    let page = wish.page_bytes.max(1);
    let one = context.div_ceil(PAGE as usize) as u64;
    let all = one.saturating_mul(wish.sequences as u64);
    let left = wish.free.map(|free| free.saturating_sub(wish.other));
    let budget = wish.kv_memory.or(left.map(|left| left / 2));
    let pages = match (budget, wish.kv_memory) {
        (None, _) => all,
        (Some(budget), Some(_)) => budget / page,
        (Some(budget), None) => all.min(budget / page),
    };
    let words = |count: u64| bytes(count.saturating_mul(page));
    if let Some(left) = left.filter(|left| pages.saturating_mul(page) > *left) {
        return Err(format!(
            "a KV cache of {} does not fit: {} are free beside the weights, {} of which steps take",
            words(pages),
            bytes(left.saturating_add(wish.other)),
            bytes(wish.other)
        ));
    }
    let least = if wish.context.is_some() { one } else { 1 };
    if pages < least {
        return Err(format!(
            "a text of {} tokens takes {} of KV cache, there is room for {}: ask for a smaller --max-context or a larger \
             --kv-memory",
            if wish.context.is_some() { context } else { PAGE as usize },
            words(least),
            words(pages)
        ));
    }
    let held = usize::try_from(pages.saturating_mul(PAGE)).unwrap_or(usize::MAX);
    let pages = usize::try_from(pages).map_err(|_| "a KV cache of too many pages".to_owned())?;
    Ok(Sizes { context: context.min(held), pages, cut: held < context })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish {
        model_context: 1000,
        context: None,
        sequences: 4,
        kv_memory: None,
        page_bytes: 100,
        other: 1000,
        free: Some(1_000_000),
    };

    #[test]
    fn there_is_room_for_all_or_for_half_of_the_memory() {
        assert_eq!(sizes(&WISH), Ok(Sizes { context: 1000, pages: 252, cut: false }));
        assert_eq!(
            sizes(&Wish { context: Some(100), ..WISH }),
            Ok(Sizes { context: 100, pages: 28, cut: false })
        );
        assert_eq!(sizes(&Wish { context: Some(5000), ..WISH }).unwrap().context, 1000);
        let tight = Wish { free: Some(21_000), ..WISH };
        assert_eq!(sizes(&tight), Ok(Sizes { context: 1000, pages: 100, cut: false }));
        let tighter = Wish { free: Some(5_000), ..WISH };
        assert_eq!(sizes(&tighter), Ok(Sizes { context: 320, pages: 20, cut: true }));
        assert_eq!(sizes(&Wish { free: None, ..WISH }).unwrap().pages, 252);
        assert_eq!(sizes(&Wish { kv_memory: Some(90_000), ..WISH }).unwrap().pages, 900);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        let refused = |wish: Wish| sizes(&wish).unwrap_err();
        let large = refused(Wish { kv_memory: Some(2_000_000), ..WISH });
        assert!(large.contains("1.9 MiB does not fit") && large.contains("976.6 KiB are free"), "{large}");
        let small = refused(Wish { kv_memory: Some(6_200), context: Some(1000), ..WISH });
        assert!(small.contains("1000 tokens takes 6.2 KiB") && small.contains("room for 6.1 KiB"), "{small}");
        assert!(refused(Wish { free: Some(900), ..WISH }).contains("room for 0 B"));
        assert!(refused(Wish { kv_memory: Some(99), ..WISH }).contains("room for 0 B"));
    }
}
