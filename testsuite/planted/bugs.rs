// The bugs that are planted into copies of the scheduler's files, one at a time: a name, the file, a place in it, and
// what stands there instead of what is between the angle brackets. The place must be found exactly once, so a change of
// the scheduler that moves it is noticed. The files themselves know nothing of this.

/// What a bug is.
type Bug = (&'static str, &'static str, &'static str, &'static str);

/// The bugs. Those of other engines are named by the report that describes them.
const BUGS: &[Bug] = &[
    // Pages.
    ("a page has a user too many from the start", "blocks.rs", "«self.users[*page as usize] = 1»;", "self.users[*page as usize] = 2"),
    ("a shared page is not counted", "blocks.rs", "«self.users[at] += 1»;", "()"),
    ("a page is lost when its last user leaves", "blocks.rs", "(true, false) => «self.free.push(page)»,", "()"),
    ("a page is free although others use it", "blocks.rs", "(false, _) => «{}»", "self.free.push(page)"),
    ("a forgotten page is still marked as kept", "blocks.rs", "«self.kept[at] = false»;", "()"),
    // The prefix tree.
    ("nothing is left to compute after a full hit (vLLM 50749)", "engine/cache.rs", "«tokens.len().saturating_sub(1)» / PAGE", "tokens.len()"),
    ("a hit is forgotten while it is used (phantom hits after eviction)", "engine/cache.rs", "«self.tree.used(page)»;\n            pages.push", "()"),
    ("a hit is not held", "engine/cache.rs", ".filter(|page| «self.pool.share(*page).is_ok()»)", "*page < u32::MAX"),
    ("a page is known before it is filled (vLLM 37152)", "engine/scheduler.rs", "before..«sequence.computed / PAGE as usize»;", "sequence.computed.div_ceil(PAGE as usize)"),
    ("a block is found without comparing its last token (hash collision)", "engine/prefix.rs", "«tokens.get(block * page..(block + 1) * page)?.try_into().ok()»", "{ let mut block: Block = tokens.get(block * page..(block + 1) * page)?.try_into().ok()?; block[15] = 0; Some(block) }"),
    ("tenants share pages", "engine/cache.rs", "Parent::Root(«salt.to_vec()»)", "Vec::new()"),
    ("a block is found without what came before it", "engine/cache.rs", "Some(before) => «Parent::Page(*pages.get(before)?)»,", "{ let _ = before; Parent::Root(salt.to_vec()) }"),
    ("a page that was exchanged is not given back", "engine/cache.rs", "«self.release(vec![own])»;", "()"),
    ("a page that was exchanged is not held", "engine/cache.rs", "«self.pool.share(page)?»;", "()"),
    ("a forgotten page can still be found", "engine/prefix.rs", "«self.pages.remove(&node.edge)»;", "None::<u32>"),
    ("a forgotten page is not freed", "engine/cache.rs", "«self.pool.forget(page)?»;", "()"),
    // Putting back.
    ("the pages of a sequence that is put back are lost", "engine/scheduler.rs", "«self.cache.release(sequence.restart())»;\n        sequence.preemptions", "{ sequence.restart(); }"),
    ("a sequence that is put back goes on where it was", "engine/sequence.rs", "«self.computed = 0»;\n        self.drafts", "()"),
    ("a sequence that is put back is computed all the same", "engine/scheduler.rs", "«plan.chunks.retain(|chunk| chunk.turn != turn)»;", "()"),
    ("the first in line is put back", "engine/scheduler.rs", "«self.running.pop_last()»", "self.running.pop_first()"),
    ("who is put back comes in again in the same step (vllm-ascend 16315)", "engine/scheduler.rs", "|| «wanted <= self.cache.available()»", "wanted < usize::MAX"),
    ("the pages that sequences leave last are forgotten first", "engine/prefix.rs", "«self.idle.pop_first()?»", "self.idle.pop_last()?"),
    ("the beginning of a text is forgotten before its end", "engine/cache.rs", "for page in «pages.into_iter().rev()» {", "{ let mut pages = pages; pages.reverse(); pages.into_iter().rev() }"),
    ("who is put back is forgotten", "engine/scheduler.rs", "plan.preempted.push(turn);\n        «self.waiting.insert(turn, sequence)»;", "None::<Sequence>"),
    // Ends.
    ("the pages of a client that leaves are lost (vLLM 46283)", "engine/scheduler.rs", "«self.cache.release(sequence.map(|sequence| sequence.pages).unwrap_or_default())»;", "drop(sequence)"),
    ("a client that leaves while it waits stays in line", "engine/scheduler.rs", "let sequence = «self.waiting.remove(&turn)».or_else", "None::<Sequence>"),
    ("a client that leaves while it runs stays there (vLLM 18485)", "engine/scheduler.rs", "or_else(|| «self.running.remove(&turn)»)", "self.running.get(&turn).cloned()"),
    ("a sequence that has ended keeps its pages", "engine/scheduler.rs", "if «outcome.finished» {", "false"),
    // The budget.
    ("a step has more tokens than it may", "engine/scheduler.rs", "sequence.pending().min(«self.config.max_tokens - plan.tokens()»);", "self.config.max_tokens"),
    ("a prompt whose rows are wanted takes the rows of others", "engine/scheduler.rs", "let others = «self.config.max_sequences - plan.chunks.len() - 1»;", "0"),
    ("a step has more sequences than it may", "engine/scheduler.rs", "«self.running.len() == self.config.max_sequences» {", "false"),
    ("drafts take more rows than there are", "engine/scheduler.rs", "«(self.config.max_tokens - plan.tokens()).min(self.config.max_rows - plan.rows())»;", "self.config.max_tokens - plan.tokens()"),
    ("drafts go beyond the context", "engine/scheduler.rs", "sequence.drafts.len().min(left).min(«room»);", "room.max(usize::MAX)"),
    ("a page too few is taken", "engine/sequence.rs", "«len.div_ceil(PAGE as usize)».saturating_sub", "(len / PAGE as usize)"),
    // The line.
    ("what can never fit waits for ever (vLLM 35541)", "engine/scheduler.rs", "if «found == 0 || found > capacity» {", "found == 0"),
    ("the large are overtaken by the small", "engine/scheduler.rs", "«if comes { continue } else { return }»", "continue"),
    ("the low priorities starve", "engine/scheduler.rs", "due: «self.steps.saturating_add(delay)»,", "delay"),
    ("priorities stand on their head", "engine/scheduler.rs", "let rank = «i64::from(arrival.priority) - i64::from(i32::MIN)»;", "i64::from(i32::MAX) - i64::from(arrival.priority)"),
    ("answers stutter while prompts are read", "engine/scheduler.rs", "«self.continue_running(&mut plan, Sequence::decodes)»;", "self.continue_running(&mut plan, |sequence| !sequence.decodes())"),
    // Rows and speculation.
    ("the last chunk of a prompt gives no row", "engine/scheduler.rs", "let ends = «len == sequence.pending()»;", "false"),
    ("drafts that were wrong stay in the cache (vLLM 41758)", "engine/sequence.rs", "«right.take_while(|(token, draft)| token == draft).count()»;", "{ let _ = right; chunk.drafts }"),
    ("the newest token is never computed", "engine/sequence.rs", "self.computed = «chunk.start + chunk.len + accepted»;", "chunk.start + chunk.len + accepted + usize::from(!tokens.is_empty())"),
    ("a prompt whose rows are wanted is taken from the cache", "engine/scheduler.rs", "self.config.prefix_cache && «!sequence.all_rows»", "true"),
];
