//! A plan as text: one line a target, with the ops that make it; for snapshots and for reading.

use std::fmt::Write as _;

use super::node::{DropReason, NodeId, Op, Plan};
use crate::diagnostic::plain::one_line;

/// Inputs that an op shows; of more, the first and the last are enough.
const SHOWN: usize = 4;

impl Plan {
    /// The plan as text, the same for equal plans.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for target in &self.targets {
            let _ = write!(out, "{}  {}", one_line(&target.key), self.info(target));
            match &target.tied_to {
                Some(root) => {
                    let _ = write!(out, " = {}", one_line(root));
                }
                None => {
                    let made = self.expression(target.node);
                    if made != one_line(&target.key) {
                        let _ = write!(out, " <- {made}");
                    }
                }
            }
            out.push('\n');
        }
        for dropped in &self.dropped {
            let reason = match &dropped.reason {
                DropReason::Rule(id) => self
                    .rules
                    .get(id.0 as usize)
                    .map_or_else(String::new, |rule| format!("{}:{}", rule.file, rule.line)),
                DropReason::TiedTo(key) => format!("one tensor with {}", one_line(key)),
                DropReason::NotWanted => "not wanted".to_owned(),
            };
            let _ = writeln!(out, "- {}  ({reason})", one_line(&dropped.key));
        }
        out
    }

    /// How a node is made, as nested calls: `concat(a, b; dim 1)`.
    pub fn expression(&self, id: NodeId) -> String {
        let mut out = String::new();
        self.write_expression(id, &mut out, 0);
        out
    }

    fn write_expression(&self, id: NodeId, out: &mut String, depth: usize) {
        let node = self.node(id);
        if depth > 32 {
            out.push('…');
            return;
        }
        if let Op::Source { key } = &node.op {
            out.push_str(&one_line(key));
            return;
        }
        let primitive = node.primitive();
        out.push_str(primitive.name);
        out.push('(');
        let count = node.inputs.len();
        for (at, input) in node.inputs.iter().enumerate() {
            if count > SHOWN && at > 0 && at + 1 < count {
                if at == 1 {
                    let _ = write!(out, ", … {} more …", count - 2);
                }
                continue;
            }
            if at > 0 {
                out.push_str(", ");
            }
            self.write_expression(*input, out, depth + 1);
        }
        let detail = primitive.detail();
        if !detail.is_empty() {
            out.push_str(if count > 0 { "; " } else { "" });
            out.push_str(&detail);
        }
        out.push(')');
    }
}
