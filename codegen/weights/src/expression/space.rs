//! The positions of a result, and where they lie in what it is computed from.

/// A whole number that depends on the position linearly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Linear {
    /// Its value at the first position.
    pub(super) offset: usize,
    /// How much it grows along each axis of the space.
    pub(super) strides: Vec<usize>,
}

impl Linear {
    pub(super) fn times(mut self, factor: usize) -> Self {
        self.offset *= factor;
        self.strides.iter_mut().for_each(|stride| *stride *= factor);
        self
    }
}

/// Why a value cannot be seen under another shape.
pub(super) enum Misfit {
    /// An axis of the space has to be cut first, so that its inner part has this extent.
    Cut { axis: usize, inner: usize },
    /// It lies at no strides.
    Never,
}

/// The axes of the result, each cut into one or several, outermost first.
pub(super) struct Space {
    axes: Vec<Vec<usize>>,
}

impl Space {
    pub(super) fn of(shape: &[usize]) -> Self {
        Self { axes: shape.iter().map(|extent| vec![*extent]).collect() }
    }

    /// The extents of all axes, outermost first.
    pub(super) fn extents(&self) -> Vec<usize> {
        self.axes.concat()
    }

    /// Cuts an axis in two, the inner one of the given extent, which divides it.
    pub(super) fn cut(&mut self, axis: usize, inner: usize) {
        let mut before = 0;
        for parts in &mut self.axes {
            if axis < before + parts.len() {
                let at = axis - before;
                parts[at] /= inner;
                parts.insert(at + 1, inner);
                return;
            }
            before += parts.len();
        }
    }

    /// What is the same at all positions: 0.
    pub(super) fn nowhere(&self) -> Linear {
        Linear { offset: 0, strides: vec![0; self.axes.iter().map(Vec::len).sum()] }
    }

    /// The indices of the result itself.
    pub(super) fn whole(&self) -> Vec<Linear> {
        let mut indices = Vec::new();
        let mut before = 0;
        for parts in &self.axes {
            let mut index = self.nowhere();
            for at in 0..parts.len() {
                index.strides[before + at] = parts[at + 1..].iter().product();
            }
            before += parts.len();
            indices.push(index);
        }
        indices
    }

    /// The number of an element in row-major order.
    pub(super) fn flat(&self, at: &[Linear], shape: &[usize]) -> Linear {
        let mut sum = self.nowhere();
        for (index, extent) in at.iter().zip(shape) {
            sum = sum.times(*extent);
            sum.offset += index.offset;
            sum.strides.iter_mut().zip(&index.strides).for_each(|(sum, stride)| *sum += stride);
        }
        sum
    }

    /// The indices under a shape of the element with a number.
    pub(super) fn unravel(&self, mut number: Linear, shape: &[usize]) -> Result<Vec<Linear>, Misfit> {
        let extents = self.extents();
        let mut indices = Vec::with_capacity(shape.len());
        for extent in shape.iter().rev() {
            let mut index = self.nowhere();
            index.offset = number.offset % extent;
            let mut greatest = index.offset;
            for (axis, stride) in number.strides.iter_mut().enumerate().filter(|(axis, _)| extents[*axis] > 1)
            {
                if *stride % extent == 0 {
                    *stride /= extent;
                    continue;
                }
                let reach = *stride * (extents[axis] - 1);
                if reach >= *extent {
                    let inner = extent / *stride;
                    let cuts =
                        *stride < *extent && extent % *stride == 0 && extents[axis].is_multiple_of(inner);
                    return Err(if cuts { Misfit::Cut { axis, inner } } else { Misfit::Never });
                }
                greatest += reach;
                index.strides[axis] = std::mem::take(stride);
            }
            if greatest >= *extent {
                return Err(Misfit::Never);
            }
            number.offset /= extent;
            indices.push(index);
        }
        indices.reverse();
        Ok(indices)
    }
}
