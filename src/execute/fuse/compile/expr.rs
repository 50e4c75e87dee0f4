//! What is computed for each element of a piece.

use crate::execute::value::Step;
use crate::plan::Arithmetic;
use crate::tensor::Dtype;

/// What becomes of the operands' elements.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::execute) enum Expr {
    Operand(usize),
    /// One element, for all.
    Constant(Vec<u8>),
    Step {
        step: Step,
        from: Dtype,
        to: Dtype,
        input: Box<Expr>,
    },
    Binary {
        with: Arithmetic,
        inputs: Box<[Expr; 2]>,
        from: [Dtype; 2],
        to: Dtype,
    },
    /// Elements of an operand that is held whole.
    Lookup {
        codes: Box<Expr>,
        from: Dtype,
        list: usize,
        to: Dtype,
    },
    /// The sum of so many products of elements of two operands that are held whole: of the first
    /// from where its lane is on, of the second from there on with steps.
    Product {
        factors: [usize; 2],
        count: u64,
        step: u64,
        to: Dtype,
    },
}

impl Expr {
    /// The codes that an operand is, which is more than to read it: of half bytes, each is a byte.
    pub(in crate::execute) fn codes() -> Self {
        let (from, to) = (Dtype::U8, Dtype::U8);
        Expr::Step { step: Step::Codes, from, to, input: Box::new(Expr::Operand(0)) }
    }

    /// The dtype that is computed; `None` of what is only read or made.
    pub(in crate::execute) fn dtype(&self) -> Option<Dtype> {
        match self {
            Expr::Operand(_) | Expr::Constant(_) => None,
            Expr::Step { to, .. }
            | Expr::Binary { to, .. }
            | Expr::Lookup { to, .. }
            | Expr::Product { to, .. } => Some(*to),
        }
    }

    /// The same over operands that come so many later.
    pub(in crate::execute) fn shifted(&self, by: usize) -> Self {
        let mut expr = self.clone();
        expr.shift(by);
        expr
    }

    fn shift(&mut self, by: usize) {
        match self {
            Expr::Operand(at) => *at += by,
            Expr::Constant(_) => {}
            Expr::Step { input, .. } => input.shift(by),
            Expr::Binary { inputs, .. } => inputs.iter_mut().for_each(|input| input.shift(by)),
            Expr::Lookup { codes, list, .. } => {
                codes.shift(by);
                *list += by;
            }
            Expr::Product { factors, .. } => factors.iter_mut().for_each(|at| *at += by),
        }
    }

    /// The operands that are held whole.
    pub(in crate::execute) fn lists(&self) -> Vec<usize> {
        let mut found = Vec::new();
        self.each(&mut |expr, _| match expr {
            Expr::Lookup { list, .. } => found.push(*list),
            Expr::Product { factors, .. } => found.extend(factors),
            _ => {}
        });
        found
    }

    /// What its numbers come from: operands and what is looked up, each with the dtype that says
    /// which of them are finite, if it isn't that of the operand.
    pub(in crate::execute) fn inputs(&self) -> Vec<(&Expr, Option<Dtype>)> {
        let mut found = Vec::new();
        self.each(&mut |expr, seen_as| match expr {
            Expr::Operand(_) => found.push((expr, seen_as)),
            Expr::Lookup { to, .. } => found.push((expr, Some(*to))),
            _ => {}
        });
        found
    }

    /// Tells each expression in this one, and the dtype as which its elements count, if a step says.
    fn each<'e>(&'e self, tell: &mut dyn FnMut(&'e Expr, Option<Dtype>)) {
        let mut open = vec![(self, None)];
        while let Some((expr, seen_as)) = open.pop() {
            tell(expr, seen_as);
            match expr {
                Expr::Operand(_) | Expr::Constant(_) | Expr::Product { .. } => {}
                Expr::Step { step, from, input, .. } => {
                    let counts_as = step.counts_as(*from);
                    let inner = match step {
                        // Codes stay what they are, so they are seen as what reads them sees them.
                        Step::Codes => seen_as,
                        _ => (counts_as != *from).then_some(counts_as),
                    };
                    open.push((input, inner));
                }
                Expr::Binary { inputs, .. } => {
                    open.extend(inputs.iter().map(|input| (input, None)));
                }
                Expr::Lookup { codes, .. } => open.push((codes, None)),
            }
        }
    }
}
