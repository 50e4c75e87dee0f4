use super::*;

#[test]
fn rows_stand_where_their_kind_says() {
    for row in OPS {
        assert_eq!(row.kind.row().name, row.name);
        assert!(
            row.parameters
                .iter()
                .rev()
                .skip(1)
                .all(|one| { !matches!(one.presence, Presence::Many(..)) })
        );
    }
}

#[test]
fn rows_that_share_a_name_stand_together_and_differ_by_over() {
    let mut seen = names();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), names().len());
    for pair in OPS.windows(2).filter(|pair| pair[0].name == pair[1].name) {
        let has_over = |row: &Row| row.parameters.iter().any(|one| one.kind == ParameterKind::Over);
        assert!(!has_over(&pair[0]) && has_over(&pair[1]));
    }
}

/// What undoes an op takes what it gives, and gives what it takes; and it says so in the
/// reference.
#[test]
fn inverses_lead_back() {
    let back = |flow| match flow {
        Flow::Each => Flow::Each,
        Flow::Join(many) => Flow::Part(many),
        Flow::Part(many) => Flow::Join(many),
        Flow::With => Flow::With,
        Flow::Gather => Flow::Scatter,
        Flow::Scatter => Flow::Gather,
    };
    for row in OPS {
        let other = match row.inverse {
            Inverse::Op(kind) | Inverse::Reordered(kind, ..) | Inverse::Widening(kind, _) => {
                kind.row()
            }
            Inverse::Permutation => row,
            Inverse::None(_) => {
                assert_eq!(row.docs[2], "none", "{}", row.name);
                continue;
            }
        };
        assert_eq!(other.flow, back(row.flow), "{}", row.name);
        if other.kind != row.kind {
            assert!(row.docs[2].contains(other.name), "{}: {}", row.name, row.docs[2]);
        }
        match (row.inverse, other.inverse) {
            (Inverse::Op(_), Inverse::Op(kind)) => {
                assert_eq!(kind, row.kind);
                assert_eq!(row.count(), other.count(), "{}", row.name);
            }
            (Inverse::Reordered(_, there, _), Inverse::Reordered(kind, back, _)) => {
                assert_eq!(kind, row.kind);
                assert_eq!(there.len(), row.parameters.len());
                assert!(there.iter().enumerate().all(|(at, from)| back[*from] == at));
            }
            (Inverse::Widening(_, _), Inverse::Widening(..))
            | (Inverse::Permutation, Inverse::Permutation) => {}
            (one, other) => panic!("{}: {one:?} and {other:?}", row.name),
        }
    }
}

#[test]
fn forms_show_what_may_be_left_out() {
    let form = |kind: OpKind| kind.row().form();
    assert_eq!(form(OpKind::Stack), "stack(e[, dim])");
    assert_eq!(form(OpKind::Concat), "concat(dim[, a, b, …])");
    assert_eq!(form(OpKind::SplitOver), "split(dim, over s[, a, b, …])");
    assert_eq!(form(OpKind::Permute), "permute(a, b, …)");
    assert_eq!(form(OpKind::Slice), "slice(dim, a..b[, of])");
    assert_eq!(form(OpKind::DequantFp8), "dequant_fp8([block[, to[, from]]])");
    assert_eq!(form(OpKind::Neg), "neg");
}
