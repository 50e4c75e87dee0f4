//! Reading an op as it is written: its arguments, by the parameters of its row.

use super::{Argument, Call, MAKERS, OpUse};
use crate::check::value::{Scope, as_name};
use crate::diagnostic::codes::{OP_ARGUMENTS, UNKNOWN_OP};
use crate::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::key::Slot;
use crate::syntax::ast::{Arg, Expr, ExprKind, OpCall};
use crate::syntax::op::{self, Parameter, ParameterKind, Presence};
use crate::tensor::Dtype;

/// Reads an op of a rule. `slot` finds a capture by name.
///
/// # Errors
/// An unknown op, or arguments that don't fit it.
pub fn resolve(
    call: &OpCall,
    scope: &Scope,
    slot: &dyn Fn(&str) -> Option<Slot>,
) -> Result<OpUse<Expr>, Box<Diagnostic>> {
    let Some(row) = op::row(&call.name.text, &call.args) else {
        return Err(unknown(call, scope));
    };
    let arguments = Arguments { call, scope };
    let (least, most) = row.count();
    arguments.count(least, most, row.wants)?;
    let read = |(at, parameter): (usize, &Parameter)| arguments.read(at, parameter, slot);
    let arguments = row.parameters.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(OpUse { op: Call::new(row.kind, arguments), place: scope.place(call.span) })
}

fn unknown(call: &OpCall, scope: &Scope) -> Box<Diagnostic> {
    let name = call.name.text.as_str();
    if MAKERS.iter().any(|(maker, _)| *maker == name) {
        return Box::new(
            Diagnostic::error(
                OP_ARGUMENTS,
                format!("`{name}` makes a tensor, so it stands where a source stands"),
            )
            .at(scope.place(call.span), "not an op on a tensor")
            .hint(format!("write it as a source of a map: map \"a\", {name}([4], F32) -> …")),
        );
    }
    let names = op::names();
    let place = scope.place(call.name.span);
    let finding = Diagnostic::error(UNKNOWN_OP, format!("there is no op `{name}`"))
        .at(place.clone(), "unknown op");
    Box::new(match did_you_mean(name, names.iter().copied()) {
        Some(close) => finding.meant(place, close),
        None => finding.hint(format!("the ops are {}", names.join(", "))),
    })
}

/// Reads a dtype by name, in any case.
///
/// # Errors
/// A name that no dtype has.
pub fn dtype(name: &str, place: Place) -> Result<Dtype, Box<Diagnostic>> {
    name.to_uppercase().parse().map_err(|_| {
        let mut diagnostic = Diagnostic::error(OP_ARGUMENTS, format!("there is no dtype `{name}`"))
            .at(place.clone(), "unknown dtype");
        let upper = name.to_uppercase();
        if let Some(close) = did_you_mean(&upper, Dtype::ALL.iter().map(|dtype| dtype.name())) {
            diagnostic = diagnostic.meant(place, close);
        } else {
            diagnostic = diagnostic
                .hint("dtypes are named as in safetensors: F32, BF16, F16, I64, U8, F8_E4M3, …");
        }
        Box::new(diagnostic)
    })
}

/// The arguments of a call, as they are read.
pub(super) struct Arguments<'a> {
    pub(super) call: &'a OpCall,
    pub(super) scope: &'a Scope,
}

impl Arguments<'_> {
    /// What a parameter is in this call.
    fn read(
        &self,
        at: usize,
        parameter: &Parameter,
        slot: &dyn Fn(&str) -> Option<Slot>,
    ) -> Result<Argument<Expr>, Box<Diagnostic>> {
        if let Presence::Many(..) = parameter.presence {
            let values = (at..self.call.args.len()).map(|at| self.value(at));
            return values.collect::<Result<_, _>>().map(Argument::Numbers);
        }
        if at >= self.call.args.len() {
            return Ok(match parameter.presence {
                Presence::Number(number) => {
                    let number = Expr { kind: ExprKind::Int(number), span: self.call.span };
                    match parameter.kind {
                        ParameterKind::Block => Argument::Shape(vec![number.clone(), number]),
                        _ => Argument::Number(number),
                    }
                }
                Presence::Dtype(dtype) => Argument::Dtype(dtype),
                Presence::Required | Presence::Optional | Presence::Many(..) => Argument::Absent,
            });
        }
        Ok(match parameter.kind {
            ParameterKind::Number | ParameterKind::Flag => Argument::Number(self.value(at)?),
            ParameterKind::Shape => Argument::Shape(self.list(at)?),
            ParameterKind::Block => Argument::Shape(match self.value(at)? {
                Expr { kind: ExprKind::List(sizes), .. } => sizes,
                size => vec![size.clone(), size],
            }),
            ParameterKind::Range => self.range(at)?,
            ParameterKind::Capture | ParameterKind::Over => {
                Argument::Capture(self.capture(at, slot)?)
            }
            ParameterKind::Dtype => Argument::Dtype(self.dtype(at)?),
        })
    }

    fn wrong(&self, takes: &str) -> Box<Diagnostic> {
        let name = &self.call.name.text;
        Box::new(
            Diagnostic::error(OP_ARGUMENTS, format!("wrong arguments for `{name}`"))
                .at(self.scope.place(self.call.span), format!("`{name}` takes {takes}")),
        )
    }

    pub(super) fn count(
        &self,
        least: usize,
        most: usize,
        takes: &str,
    ) -> Result<(), Box<Diagnostic>> {
        if (least..=most).contains(&self.call.args.len()) { Ok(()) } else { Err(self.wrong(takes)) }
    }

    fn value(&self, at: usize) -> Result<Expr, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Value(expr)) => Ok(expr.clone()),
            _ => Err(self.wrong("a number here")),
        }
    }

    pub(super) fn list(&self, at: usize) -> Result<Vec<Expr>, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Value(Expr { kind: ExprKind::List(items), .. })) => Ok(items.clone()),
            _ => Err(self.wrong("a shape in brackets here, as in `[4, -1]`")),
        }
    }

    fn range(&self, at: usize) -> Result<Argument<Expr>, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Range(start, end)) => Ok(Argument::Range(start.clone(), end.clone())),
            _ => Err(self.wrong(&format!("a range, as in `{}(0, 2..8)`", self.call.name.text))),
        }
    }

    fn capture(
        &self,
        at: usize,
        slot: &dyn Fn(&str) -> Option<Slot>,
    ) -> Result<Slot, Box<Diagnostic>> {
        let name = match self.call.args.get(at) {
            Some(Arg::Over(name)) => name.clone(),
            Some(Arg::Value(expr)) => as_name(expr).ok_or_else(|| self.wrong("a capture here"))?,
            _ => return Err(self.wrong("a capture here")),
        };
        slot(&name.text).ok_or_else(|| {
            Box::new(
                Diagnostic::error(
                    OP_ARGUMENTS,
                    format!("no pattern of this rule has a capture `{}`", name.text),
                )
                .at(self.scope.place(name.span), "not a capture of this rule"),
            )
        })
    }

    pub(super) fn dtype(&self, at: usize) -> Result<Dtype, Box<Diagnostic>> {
        match self.call.args.get(at) {
            Some(Arg::Value(expr)) => {
                let name = as_name(expr).ok_or_else(|| self.wrong("a dtype here"))?;
                dtype(&name.text, self.scope.place(name.span))
            }
            _ => Err(self.wrong("a dtype here")),
        }
    }
}
