//! Before anything is made of a node, it is checked against its inputs, and that its op is defined
//! on their dtypes.

use crate::error::{Error, Result};
use crate::execute::value::{self, Step};
use crate::plan::{Inconsistent, NodeId, Op, Plan};
use crate::tensor::TensorInfo;

pub(in crate::execute) fn inconsistent(what: &str) -> Error {
    Error::corrupt(Inconsistent::new(what).to_string())
}

/// Checks a node, so that nothing later can leave a tensor.
pub(in crate::execute) fn check(plan: &Plan, id: NodeId) -> Result<()> {
    plan.check_node(id).map_err(|why| Error::corrupt(why.to_string()))?;
    let node = plan.node(id);
    let infos: Vec<&TensorInfo> = node.inputs.iter().map(|input| &plan.node(*input).info).collect();
    let to = node.info.dtype;
    match (&node.op, &infos[..]) {
        (Op::Binary { .. }, [a, b]) => value::check_binary(a.dtype, b.dtype, to),
        (Op::Reduce { .. }, [x]) => value::check_binary(x.dtype, x.dtype, to),
        (Op::Lookup, [codes, list]) => value::check_list(codes.dtype, list.dtype),
        (op, [x]) => Step::of(op).map_or(Ok(()), |step| step.check(x.dtype, to)),
        _ => Ok(()),
    }
}
