//! What names stand for: registers, labels, variables, parameters.

use super::super::program::{Program, Reg};
use crate::memory::{PARAM_WINDOW, Place};
use crate::ptx::{Param, RegisterClass};
use std::collections::BTreeMap;

/// A pair of braces.
#[derive(Default)]
struct Scope {
    parent: Option<usize>,
    /// Registers by name.
    single: BTreeMap<String, (RegisterClass, u32)>,
    /// Registers by prefix: class, first number, how many.
    range: BTreeMap<String, (RegisterClass, u32, u32)>,
    labels: BTreeMap<String, u32>,
}

/// All names of a kernel.
pub(super) struct Names {
    scopes: Vec<Scope>,
    current: usize,
    /// Addresses of shared variables.
    variables: BTreeMap<String, u64>,
    /// Places of parameters.
    params: BTreeMap<String, u32>,
}

impl Names {
    pub(super) fn new(places: Vec<Place>, params: &[Param]) -> Names {
        Names {
            scopes: vec![Scope::default()],
            current: 0,
            variables: places.into_iter().map(|place| (place.name, u64::from(place.address))).collect(),
            params: params.iter().map(|param| (param.name.clone(), param.offset)).collect(),
        }
    }

    pub(super) fn open(&mut self) {
        self.scopes.push(Scope { parent: Some(self.current), ..Scope::default() });
        self.current = self.scopes.len() - 1;
    }

    pub(super) fn close(&mut self) {
        self.current = self.scopes[self.current].parent.unwrap_or(0);
    }

    pub(super) fn scope(&self) -> usize {
        self.current
    }

    pub(super) fn declare(
        &mut self,
        program: &mut Program,
        class: RegisterClass,
        name: &str,
        count: Option<u32>,
    ) {
        let counter = match class {
            RegisterClass::Predicate => &mut program.predicates,
            RegisterClass::B16 | RegisterClass::B32 => &mut program.words,
            RegisterClass::B64 => &mut program.longs,
        };
        let (scope, first) = (&mut self.scopes[self.current], *counter);
        *counter += count.unwrap_or(1);
        match count {
            Some(count) => drop(scope.range.insert(name.into(), (class, first, count))),
            None => drop(scope.single.insert(name.into(), (class, first))),
        }
    }

    /// Notes a label; false if it was there.
    pub(super) fn label(&mut self, name: &str, at: u32) -> bool {
        self.scopes[self.current].labels.insert(name.into(), at).is_none()
    }

    fn outward(&self, scope: usize) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(&self.scopes[scope]), |scope| scope.parent.map(|at| &self.scopes[at]))
    }

    pub(super) fn find_label(&self, scope: usize, name: &str) -> Option<u32> {
        self.outward(scope).find_map(|scope| scope.labels.get(name).copied())
    }

    /// The register of a name.
    pub(super) fn register(&self, name: &str) -> Option<(RegisterClass, u32)> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (prefix, number) = name.split_at(name.len() - digits);
        self.outward(self.current).find_map(|scope| {
            if let Some(found) = scope.single.get(name) {
                return Some(*found);
            }
            let (class, first, count) = scope.range.get(prefix)?;
            let number: u32 = number.parse().ok()?;
            (number < *count).then_some((*class, first + number))
        })
    }

    /// The address of a shared variable or a parameter.
    pub(super) fn symbol(&self, name: &str) -> Option<u64> {
        let param = || self.params.get(name).map(|place| PARAM_WINDOW + u64::from(*place));
        self.variables.get(name).copied().or_else(param)
    }

    /// The place of a parameter.
    pub(super) fn param(&self, name: &str) -> Option<u32> {
        self.params.get(name).copied()
    }
}

/// The register of a class.
pub(super) fn reg(class: RegisterClass, at: u32) -> Reg {
    match class {
        RegisterClass::Predicate => Reg::Predicate(at),
        RegisterClass::B16 | RegisterClass::B32 => Reg::Word(at),
        RegisterClass::B64 => Reg::Long(at),
    }
}
