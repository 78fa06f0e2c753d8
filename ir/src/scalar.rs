//! The scalar functions that map operations and tile expressions apply. One row a function.

use crate::Real;

macro_rules! scalar_ops {
    ($($(#[$doc:meta])* $name:literal $variant:ident $arity:literal |$x:ident| $eval:expr;)*) => {
        /// A function of scalars. Truth is 1 and falsehood 0.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
        pub enum ScalarOp { $($(#[$doc])* $variant,)* }
        impl ScalarOp {
            /// Every function, in table order.
            pub const ALL: &'static [ScalarOp] = &[$(ScalarOp::$variant),*];
            /// The name in the text forms.
            pub fn name(self) -> &'static str {
                match self { $(ScalarOp::$variant => $name,)* }
            }
            /// The number of operands.
            pub fn arity(self) -> usize {
                match self { $(ScalarOp::$variant => $arity,)* }
            }
            /// The value; `x` holds [`ScalarOp::arity`] operands.
            pub fn eval<R: Real>(self, x: &[R]) -> R {
                match self { $(ScalarOp::$variant => { let $x = x; $eval })* }
            }
        }
    };
}

fn truth<R: Real>(value: bool) -> R {
    R::from_f64(if value { 1.0 } else { 0.0 })
}

fn bits<R: Real>(value: R) -> u64 {
    value.to_f64() as u64
}

scalar_ops! {
    /// −x
    "neg" Neg 1 |x| R::from_f64(0.0).sub(x[0]);
    /// |x|
    "abs" Abs 1 |x| if x[0].to_f64() < 0.0 { R::from_f64(0.0).sub(x[0]) } else { x[0] };
    /// eˣ
    "exp" Exp 1 |x| x[0].apply(f64::exp);
    /// ln x
    "log" Log 1 |x| x[0].apply(f64::ln);
    /// √x
    "sqrt" Sqrt 1 |x| x[0].apply(f64::sqrt);
    /// 1/√x
    "rsqrt" Rsqrt 1 |x| x[0].apply(|v| 1.0 / v.sqrt());
    /// 1/x
    "recip" Recip 1 |x| x[0].apply(|v| 1.0 / v);
    /// sin x, in radians
    "sin" Sin 1 |x| x[0].apply(f64::sin);
    /// cos x, in radians
    "cos" Cos 1 |x| x[0].apply(f64::cos);
    /// Hyperbolic tangent.
    "tanh" Tanh 1 |x| x[0].apply(f64::tanh);
    /// The error function.
    "erf" Erf 1 |x| x[0].apply(erf);
    /// The greatest integer that is not above x.
    "floor" Floor 1 |x| x[0].apply(f64::floor);
    /// Logical negation.
    "not" Not 1 |x| truth(x[0].to_f64() == 0.0);
    /// x + y
    "add" Add 2 |x| x[0].add(x[1]);
    /// x − y
    "sub" Sub 2 |x| x[0].sub(x[1]);
    /// x · y
    "mul" Mul 2 |x| x[0].mul(x[1]);
    /// x / y of floats
    "div" Div 2 |x| x[0].div(x[1]);
    /// ⌊x / y⌋ of integers
    "idiv" Idiv 2 |x| R::from_f64((x[0].to_f64() / x[1].to_f64()).floor());
    /// x mod y of integers
    "mod" Mod 2 |x| R::from_f64(x[0].to_f64().rem_euclid(x[1].to_f64()));
    /// ⌊x / 2ʸ⌋ of unsigned integers
    "shr" Shr 2 |x| R::from_f64((bits(x[0]) >> bits(x[1]).min(63)) as f64);
    /// The bits that both unsigned integers have.
    "bitand" Bitand 2 |x| R::from_f64((bits(x[0]) & bits(x[1])) as f64);
    /// The greater.
    "max" Max 2 |x| if x[0].to_f64() >= x[1].to_f64() { x[0] } else { x[1] };
    /// The lesser.
    "min" Min 2 |x| if x[0].to_f64() <= x[1].to_f64() { x[0] } else { x[1] };
    /// x < y
    "lt" Lt 2 |x| truth(x[0].to_f64() < x[1].to_f64());
    /// x ≤ y
    "le" Le 2 |x| truth(x[0].to_f64() <= x[1].to_f64());
    /// x = y
    "eq" Eq 2 |x| truth(x[0].to_f64() == x[1].to_f64());
    /// Both.
    "and" And 2 |x| truth(x[0].to_f64() != 0.0 && x[1].to_f64() != 0.0);
    /// Either.
    "or" Or 2 |x| truth(x[0].to_f64() != 0.0 || x[1].to_f64() != 0.0);
    /// y where x is true, else z
    "select" Select 3 |x| if x[0].to_f64() != 0.0 { x[1] } else { x[2] };
}

impl ScalarOp {
    /// The function of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }
    /// Whether the result is a truth value.
    pub fn is_predicate(self) -> bool {
        matches!(self, Self::Not | Self::Lt | Self::Le | Self::Eq | Self::And | Self::Or)
    }
    /// Whether it is defined on integers as well as on floats.
    pub fn takes_integers(self) -> bool {
        use ScalarOp::*;
        matches!(self, Add | Sub | Mul | Idiv | Mod | Shr | Bitand | Max | Min | Lt | Le | Eq | Select)
    }
}

/// The error function in double precision: the Taylor series below 2.5, the continued fraction above
/// (Abramowitz and Stegun 7.1.5 and 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a.is_nan() {
        return x;
    }
    let value = if a < 2.5 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-18 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else if a > 6.0 {
        1.0
    } else {
        let tail = (1..=60).rev().fold(0.0, |tail, k| k as f64 / 2.0 / (a + tail));
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail)
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_agrees_with_published_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, y) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)] {
            assert!((erf(x) - y).abs() < 1e-10, "{x}");
            assert!((erf(-x) + y).abs() < 1e-10, "{x}");
        }
        assert!((erf(2.4999999) - erf(2.5000001)).abs() < 1e-9);
    }

    #[test]
    fn names_are_unique() {
        for op in ScalarOp::ALL {
            assert_eq!(ScalarOp::from_name(op.name()), Some(*op));
        }
    }
}
