//! Loops and conditionals.

use super::body::{Body, K};
use super::value::{Bit, Int, Operand, Scalar, V};
use melior::ir::{BlockLike, BlockRef, Type, Value, ValueLike};

/// What a loop carries from one iteration to the next, or a conditional yields: a value, or a tuple, array or vector of
/// such. Every iteration must carry as many values of the same types.
pub trait Carry<'k>: Sized {
    /// Appends the values.
    fn flatten(&self, out: &mut Vec<Value<'k, 'k>>);
    /// The same structure with other values.
    fn rebuild(&self, k: K<'k>, values: &mut dyn Iterator<Item = Value<'k, 'k>>) -> Self;
}

impl<'k, T: Scalar> Carry<'k> for V<'k, T> {
    fn flatten(&self, out: &mut Vec<Value<'k, 'k>>) {
        out.push(self.raw);
    }
    fn rebuild(&self, k: K<'k>, values: &mut dyn Iterator<Item = Value<'k, 'k>>) -> Self {
        V::new(k, values.next().expect("as many values as before"))
    }
}

impl<'k, C: Carry<'k>, const N: usize> Carry<'k> for [C; N] {
    fn flatten(&self, out: &mut Vec<Value<'k, 'k>>) {
        self.iter().for_each(|item| item.flatten(out));
    }
    fn rebuild(&self, k: K<'k>, values: &mut dyn Iterator<Item = Value<'k, 'k>>) -> Self {
        std::array::from_fn(|at| self[at].rebuild(k, values))
    }
}

impl<'k, C: Carry<'k>> Carry<'k> for Vec<C> {
    fn flatten(&self, out: &mut Vec<Value<'k, 'k>>) {
        self.iter().for_each(|item| item.flatten(out));
    }
    fn rebuild(&self, k: K<'k>, values: &mut dyn Iterator<Item = Value<'k, 'k>>) -> Self {
        self.iter().map(|item| item.rebuild(k, values)).collect()
    }
}

macro_rules! tuples {
    ($(($($name:ident $at:tt),*))*) => {$(
        #[allow(unused_variables, reason = "the empty tuple carries nothing")]
        impl<'k, $($name: Carry<'k>),*> Carry<'k> for ($($name,)*) {
            fn flatten(&self, out: &mut Vec<Value<'k, 'k>>) {
                $(self.$at.flatten(out);)*
            }
            #[allow(clippy::unused_unit, reason = "the empty tuple is one")]
            fn rebuild(&self, k: K<'k>, values: &mut dyn Iterator<Item = Value<'k, 'k>>) -> Self {
                ($(self.$at.rebuild(k, values),)*)
            }
        }
    )*};
}
tuples! { () (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) (A 0, B 1, C 2, D 3, E 4) }

fn flat<'k>(carry: &impl Carry<'k>) -> Vec<Value<'k, 'k>> {
    let mut values = Vec::new();
    carry.flatten(&mut values);
    values
}

fn types<'k>(values: &[Value<'k, 'k>]) -> Vec<Type<'k>> {
    values.iter().map(|value| value.r#type()).collect()
}

impl<'k> Body<'k> {
    /// The structure of `like` with the arguments of a block, from the `first` on.
    fn arguments<C: Carry<'k>>(&'k self, block: BlockRef<'k, 'k>, first: usize, like: &C) -> C {
        let mut values = (first..block.argument_count())
            .map(|at| Value::from(block.argument(at).expect("the block has this argument")));
        like.rebuild(self, &mut values)
    }

    /// `body` for `from`, `from + step`, ... below `to`, carrying what it returns. The step must be positive.
    pub fn range<C: Carry<'k>>(
        &'k self,
        (from, to, step): (impl Operand<'k, super::I32>, impl Operand<'k, super::I32>, i32),
        start: C,
        body: impl FnOnce(Int<'k>, C) -> C,
    ) -> C {
        self.annotated_range((from.value(self), to.value(self), step), start, None, body)
    }

    /// The same, never unrolled.
    pub fn rolled_range<C: Carry<'k>>(
        &'k self,
        (from, to, step): (impl Operand<'k, super::I32>, impl Operand<'k, super::I32>, i32),
        start: C,
        body: impl FnOnce(Int<'k>, C) -> C,
    ) -> C {
        let rolled = "#llvm.loop_annotation<unroll = <disable = true>>";
        self.annotated_range((from.value(self), to.value(self), step), start, Some(rolled), body)
    }

    fn annotated_range<C: Carry<'k>>(
        &'k self,
        (from, to, step): (Int<'k>, Int<'k>, i32),
        start: C,
        annotation: Option<&'static str>,
        body: impl FnOnce(Int<'k>, C) -> C,
    ) -> C {
        self.annotated_loop(
            (from, start),
            annotation,
            |(at, _)| at.lt(to),
            |(at, carried)| {
                let carried = body(at, carried);
                (at + step, carried)
            },
        )
        .1
    }

    /// `body` as long as `condition` holds of what is carried.
    pub fn repeat<C: Carry<'k>>(
        &'k self,
        start: C,
        condition: impl FnOnce(&C) -> Bit<'k>,
        body: impl FnOnce(C) -> C,
    ) -> C {
        self.annotated_loop(start, None, condition, body)
    }

    fn annotated_loop<C: Carry<'k>>(
        &'k self,
        start: C,
        annotation: Option<&'static str>,
        condition: impl FnOnce(&C) -> Bit<'k>,
        body: impl FnOnce(C) -> C,
    ) -> C {
        let values = flat(&start);
        let (head, inside, after) =
            (self.new_block(&types(&values)), self.new_block(&[]), self.new_block(&[]));
        self.jump(head, &values, None);
        self.enter(head);
        let carried = self.arguments(head, 0, &start);
        let more = condition(&carried);
        self.branch(more, inside, after, &[]);
        self.enter(inside);
        let next = body(self.arguments(head, 0, &start));
        self.jump(head, &flat(&next), annotation);
        self.enter(after);
        carried
    }

    /// `body` where the condition holds.
    pub fn when(&'k self, condition: Bit<'k>, body: impl FnOnce()) {
        let (inside, after) = (self.new_block(&[]), self.new_block(&[]));
        self.branch(condition, inside, after, &[]);
        self.enter(inside);
        body();
        self.jump(after, &[], None);
        self.enter(after);
    }

    /// What `yes` yields where the condition holds, else what `no` yields.
    pub fn choose<C: Carry<'k>>(
        &'k self,
        condition: Bit<'k>,
        yes: impl FnOnce() -> C,
        no: impl FnOnce() -> C,
    ) -> C {
        let (first, second) = (self.new_block(&[]), self.new_block(&[]));
        self.branch(condition, first, second, &[]);
        self.enter(first);
        let result = yes();
        let values = flat(&result);
        let after = self.new_block(&types(&values));
        self.jump(after, &values, None);
        self.enter(second);
        self.jump_from_second(after, no());
        self.enter(after);
        self.arguments(after, 0, &result)
    }

    fn jump_from_second(&self, after: BlockRef<'k, 'k>, result: impl Carry<'k>) {
        self.jump(after, &flat(&result), None);
    }
}
