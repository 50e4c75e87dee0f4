//! Plans that don't hold together, or don't fit the checkpoint, are errors and never panics.

use regraft::error::ErrorKind;
use regraft::execute::{WriteOptions, naive, views, write};
use regraft::plan::{Arithmetic, Code, NodeId, Op, Reduction};
use regraft::tensor::{Dtype, TensorInfo};

use super::{Build, dict, names};

#[test]
fn inconsistent_plans_are_refused_everywhere() {
    let store = dict(&[("a", Dtype::F32, &[4, 6])]);
    let f32s = |shape: &[u64]| TensorInfo::new(Dtype::F32, shape);
    let a = NodeId(0);
    let bad: Vec<(Op, Vec<NodeId>, TensorInfo)> = vec![
        (Op::Narrow { dim: 0, start: 3, len: 2 }, vec![a], f32s(&[2, 6])),
        (Op::Narrow { dim: 2, start: 0, len: 1 }, vec![a], f32s(&[1, 6])),
        (Op::Narrow { dim: 0, start: u64::MAX, len: 2 }, vec![a], f32s(&[2, 6])),
        (Op::Narrow { dim: 0, start: 0, len: 2 }, vec![a], f32s(&[4, 6])),
        (Op::Narrow { dim: 0, start: 0, len: 2 }, vec![], f32s(&[2, 6])),
        (Op::Permute { dims: vec![0, 0] }, vec![a], f32s(&[4, 4])),
        (Op::Permute { dims: vec![1, 0] }, vec![a], f32s(&[4, 6])),
        (Op::Permute { dims: vec![0, 9] }, vec![a], f32s(&[4, 6])),
        (Op::Reshape, vec![a], f32s(&[25])),
        (Op::Reshape, vec![a], TensorInfo::new(Dtype::BF16, vec![24])),
        (Op::Reshape, vec![NodeId(1)], f32s(&[24])),
        (Op::Reshape, vec![NodeId(7)], f32s(&[24])),
        (Op::Concat { dim: 0 }, vec![], f32s(&[0, 6])),
        (Op::Concat { dim: 5 }, vec![a, a], f32s(&[8, 6])),
        (Op::Concat { dim: 0 }, vec![a, a], f32s(&[7, 6])),
        (Op::Cast, vec![a], TensorInfo::new(Dtype::BF16, vec![6, 4])),
        (Op::Cast, vec![a, a], TensorInfo::new(Dtype::BF16, vec![4, 6])),
        (Op::Neg, vec![a], TensorInfo::new(Dtype::F64, vec![4, 6])),
        (Op::Expand, vec![a], f32s(&[8, 6])),
        (Op::Expand, vec![a], f32s(&[1, 4, 6])),
        (Op::Expand, vec![a], TensorInfo::new(Dtype::BF16, vec![4, 6])),
        (Op::Binary { with: Arithmetic::Mul }, vec![a], f32s(&[4, 6])),
        (Op::Binary { with: Arithmetic::Mul }, vec![a, a], f32s(&[6, 4])),
        (Op::Binary { with: Arithmetic::Mul }, vec![a, a], TensorInfo::new(Dtype::I8, vec![4, 6])),
        (Op::Reduce { take: Reduction::Norm, dims: vec![0] }, vec![a], f32s(&[4, 6])),
        (Op::Reduce { take: Reduction::Norm, dims: vec![] }, vec![a], f32s(&[4, 6])),
        (Op::Reduce { take: Reduction::Norm, dims: vec![1, 0] }, vec![a], f32s(&[1, 1])),
        (Op::Reduce { take: Reduction::Norm, dims: vec![2] }, vec![a], f32s(&[4, 6])),
        (Op::Unpack { bits: 4 }, vec![a], TensorInfo::new(Dtype::U8, vec![4, 6, 4])),
        (Op::Unpack { bits: 3 }, vec![a], TensorInfo::new(Dtype::U8, vec![4, 6, 10])),
        (Op::Unpack { bits: 0 }, vec![a], TensorInfo::new(Dtype::U8, vec![4, 6, 0])),
        (Op::Decode { code: Code::E2m1 }, vec![a], f32s(&[4, 6])),
        (Op::Lookup, vec![a, a], f32s(&[4, 6])),
        (Op::Count, vec![], f32s(&[4])),
        (Op::OneForZero, vec![a], TensorInfo::new(Dtype::F64, vec![4, 6])),
        (Op::Source { key: "a".into() }, vec![], f32s(&[6, 4])),
        (Op::Source { key: "absent".into() }, vec![], f32s(&[6, 4])),
        (Op::Fill { value: 0.0 }, vec![], f32s(&[u64::MAX, 2])),
        (Op::Fill { value: 0.0 }, vec![], f32s(&[u64::MAX / 8, 4])),
    ];
    let out = tempfile::tempdir().unwrap();
    for (op, inputs, info) in bad {
        let mut build = Build::default();
        build.source(&store, "a");
        let node = build.push(op.clone(), &inputs, info.clone());
        build.target("t", node);
        assert!(views(&build.0, &store).is_err(), "views: {op:?} {inputs:?} {info}");
        assert!(
            write(&build.0, &store, &out.path().join("o"), &WriteOptions::default()).is_err(),
            "write: {op:?} {inputs:?} {info}"
        );
        assert!(
            naive::evaluate(&build.0, &store, node).is_err(),
            "naive: {op:?} {inputs:?} {info}"
        );
    }
    let mut build = Build::default();
    build.target("t", NodeId(0));
    assert!(views(&build.0, &store).is_err());
    assert!(naive::evaluate(&build.0, &store, NodeId(0)).is_err());
    assert!(write(&build.0, &store, &out.path().join("o"), &WriteOptions::default()).is_err());
    let mut build = Build::default();
    let a = build.source(&store, "a");
    build.target("t", a);
    build.target("t", a);
    let options = WriteOptions { max_shard_size: Some(1), ..WriteOptions::default() };
    assert_eq!(
        write(&build.0, &store, &out.path().join("o"), &options).unwrap_err().key(),
        Some("t")
    );
    assert!(names(out.path()).is_empty());
}

#[test]
fn an_op_without_meaning_for_a_dtype_names_the_reason() {
    let store = dict(&[("c", Dtype::C64, &[2]), ("i", Dtype::I32, &[2])]);
    for (key, op, to, reason) in [
        ("c", Op::Cast, Dtype::F32, "cannot cast C64 to F32"),
        ("c", Op::Neg, Dtype::C64, "cannot negate C64"),
        ("i", Op::Mul { value: 0.5 }, Dtype::I32, "no integer"),
        ("i", Op::Exp, Dtype::I32, "no exp or log of I32"),
    ] {
        let mut build = Build::default();
        let source = build.source(&store, key);
        let shape = build.info(source).shape;
        let node = build.push(op, &[source], TensorInfo { dtype: to, shape });
        build.target("t", node);
        let error = views(&build.0, &store).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(reason), "{error}");
    }
}
