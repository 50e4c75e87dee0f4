//! Ops that know of attention heads: rows for rotary embeddings, and query, key and value as one.

use super::super::graph::{Fit, Graph, Turned};
use super::super::node::NodeId;
use super::Number;

impl Graph {
    /// Turns pairs of rows into halves within each head, or back.
    pub(super) fn rope(&mut self, input: NodeId, heads: Number, to_halves: bool) -> Fit<NodeId> {
        let heads = heads.positive("the number of heads")?;
        let info = self.info(input).clone();
        let Some(rows) = info.shape.first().copied() else {
            return Err(format!("{info} has no dimension that holds heads"));
        };
        if rows % heads != 0 || !(rows / heads).is_multiple_of(2) {
            return Err(format!("dimension 0 of {info} must be {heads} heads of an even size"));
        }
        let half = rows / heads / 2;
        self.turned.push(Turned { heads, size: half * 2 });
        let mut per_head = vec![heads, half * 2];
        per_head.extend_from_slice(&info.shape[1..]);
        let view = self.reshape(input, per_head)?;
        let turned = self.regroup(
            view,
            1,
            |_| Some(if to_halves { [half, 2] } else { [2, half] }),
            "an even size",
        )?;
        self.reshape(turned, info.shape.to_vec())
    }

    /// Query, key and value as one: for each key head its query heads, the key head, the value head.
    pub(super) fn qkv_group(
        &mut self,
        inputs: &[NodeId],
        heads: Number,
        kv_heads: Number,
    ) -> Fit<NodeId> {
        let (heads, kv_heads) = (heads.positive("heads")?, kv_heads.positive("kv_heads")?);
        let [q, k, v] = *inputs else { return Err("qkv_group joins q, k and v".to_owned()) };
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads are no multiple of {kv_heads} key and value heads"));
        }
        let rows = self.info(q).shape.first().copied().unwrap_or(0);
        if rows % heads != 0 {
            return Err(format!("dimension 0 of {} must be {heads} heads", self.info(q)));
        }
        let head = rows / heads;
        let mut grouped = Vec::new();
        for (input, each) in [(q, heads / kv_heads), (k, 1), (v, 1)] {
            let mut shape = self.info(input).shape.to_vec();
            let expected = kv_heads.checked_mul(each).and_then(|rows| rows.checked_mul(head));
            if shape.first().copied() != expected {
                return Err(format!(
                    "dimension 0 of {} must be {} heads of {head}",
                    self.info(input),
                    kv_heads * each
                ));
            }
            shape.splice(0..1, [kv_heads, each * head]);
            grouped.push(self.reshape(input, shape)?);
        }
        let joined = self.concat(grouped, 1)?;
        let mut shape = self.info(joined).shape.to_vec();
        let rows = shape[0].checked_mul(shape[1]).ok_or("the result is too large")?;
        shape.splice(0..2, [rows]);
        self.reshape(joined, shape)
    }

    /// The inverse of [`qkv_group`](Self::qkv_group).
    pub(super) fn qkv_ungroup(
        &mut self,
        input: NodeId,
        heads: Number,
        kv_heads: Number,
    ) -> Fit<Vec<NodeId>> {
        let (heads, kv_heads) = (heads.positive("heads")?, kv_heads.positive("kv_heads")?);
        let info = self.info(input).clone();
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads are no multiple of {kv_heads} key and value heads"));
        }
        let all = heads
            .checked_add(kv_heads)
            .and_then(|sum| sum.checked_add(kv_heads))
            .ok_or("too many heads")?;
        let rows = info.shape.first().copied().unwrap_or(0);
        if rows == 0 || rows % all != 0 {
            return Err(format!(
                "dimension 0 of {info} must be {all} heads (query, key and value)"
            ));
        }
        let head = rows / all;
        let mut shape = info.shape.to_vec();
        shape.splice(0..1, [kv_heads, (heads / kv_heads + 2) * head]);
        let grouped = self.reshape(input, shape)?;
        let mut start = 0;
        [heads / kv_heads, 1, 1]
            .into_iter()
            .map(|each| {
                let len = each * head;
                start += len;
                let part = self.narrow(grouped, 1, start - len, len)?;
                let mut shape = info.shape.to_vec();
                shape[0] = kv_heads * len;
                self.reshape(part, shape)
            })
            .collect()
    }
}
