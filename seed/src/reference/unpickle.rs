//! The dtypes of a `.bin` checkpoint, as `torch.load(weights_only=True)` gives them, with its errors.
//!
//! The engine reads the pickle without running it; here a call that it doesn't know ends the
//! reading, as it does there.

use regraft::error::ErrorKind;
use regraft::store::Window;
use regraft::store::torch::{self, Meaning, Meanings, TorchDtype, Unknown};

use super::Raised;

/// Key and dtype of each tensor of a state dict that `torch.save` wrote, in order.
///
/// # Errors
/// An `UnpicklingError` for a file that is neither form of such a file, or that needs code to run;
/// an `OSError` where reading fails.
pub(crate) fn state_dict_dtypes(file: Window<'_>) -> Result<Vec<(String, TorchDtype)>, Raised> {
    let bad = |why: String| Raised::new("UnpicklingError", why);
    let saved = torch::read(file).map_err(|error| match error.kind() {
        ErrorKind::Io => Raised::new("OSError", error.to_string()),
        _ => bad(error.to_string()),
    })?;
    let meanings = Meanings::of(&saved.values);
    // It stands before where the pickle breaks, if that does.
    let unknown = meanings.iter().find_map(|(_, meaning)| match meaning {
        Meaning::Unknown(unknown) => Some(refusal(&unknown)),
        _ => None,
    });
    if let Some(why) = unknown {
        return Err(bad(why));
    }
    let root = saved.root.map_err(|error| bad(error.to_string()))?;
    let entries = saved.values.entries(root);
    let entries = entries.ok_or_else(|| bad("the file holds no state dict".to_owned()))?;
    let entry = |(key, value): &(torch::Id, torch::Id)| {
        Some((saved.values.text(*key)?.to_owned(), meanings.tensor(*value)?.dtype))
    };
    Ok(entries.iter().filter_map(entry).collect())
}

/// What that unpickler says of a call.
fn refusal(unknown: &Unknown) -> String {
    let failed = "Weights only load failed:";
    match unknown {
        Unknown::Function(name) => format!("{failed} Unsupported global: GLOBAL {name}"),
        Unknown::Arguments(name) => {
            format!("{failed} {name} with these arguments is not supported")
        }
        other => other.to_string(),
    }
}
