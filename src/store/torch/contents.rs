//! The tensors of a file that `torch.save` wrote, as keys with boxes.

use std::collections::HashMap;

use indexmap::map::Entry as Slot;

use super::container::{Container, Saved, StorageBytes};
use super::tensor::{Meanings, TorchTensor};
use super::tree::{Tree, listed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
#[cfg(feature = "files")]
use crate::store::archive::Window;
use crate::store::boxes::{Blob, Boxes};
use crate::store::contents::{Contents, FILE, packed};
use crate::tensor::{Dtype, MAX_KEY_LEN, MAX_RANK, Remark, Shape, TensorInfo};

/// Takes of a file that was read the state dict under the root that is asked for, or the usual one.
/// `file` is how it is called in what is remarked of it.
///
/// # Errors
/// If the file is broken, has no tensor there, or two keys are equal.
pub(in crate::store) fn contents(
    (saved, container): (Saved, Container<'_>),
    root: Option<&str>,
    file: &str,
) -> Result<Contents> {
    let top = saved.root.map_err(|error| broken(&error))?;
    let meanings = Meanings::of(&saved.values);
    let mut tree = Tree::new(&saved.values, meanings, top);
    let (path, id) = tree.root(root)?;
    let below = tree.below(id, root.is_some())?;
    let mut beside = tree.beside(&path);
    beside.extend(below.beside);
    if below.tensors.is_empty() && below.lost.is_empty() {
        return Err(nothing(&beside, root));
    }
    let tensor = |id| meanings.tensor(id);
    let used = below.tensors.iter().filter_map(|(_, id)| Some(tensor(*id)?.storage));
    let storages = container.storages(used, meanings)?;
    drop(container);
    let mut reader = Reader { storages, packed: HashMap::new(), contents: Contents::default() };
    let mut lost = below.lost;
    for (key, id) in below.tensors {
        let Some(tensor) = tensor(id) else { continue };
        match stored(&tensor) {
            Ok(form) => reader.add(key, &tensor, form)?,
            Err(what) => lost.push((key, what)),
        }
    }
    if reader.contents.tensors.is_empty()
        && let Some((key, what)) = lost.first()
    {
        let what = format!("nothing of the state dict can be read: {what}");
        return Err(Error::new(ErrorKind::Unsupported, what).at_key(key));
    }
    let mut foreign = tree.foreign();
    foreign.retain(|name| !below.foreign.iter().any(|(_, known)| known == name));
    let mut contents = reader.contents;
    let others = tree.roots().into_iter().map(|(path, _)| path);
    let remarks = &mut contents.remarks;
    let file = || file.to_owned();
    let path = path.join(".");
    if !path.is_empty() && root.is_none() {
        let others = others.filter(|other| *other != path).collect();
        remarks.push(Remark::Root { file: file(), root: path, others });
    }
    let (mut plain, mut trees) = (below.plain, Vec::new());
    for (path, tensors) in beside {
        if tensors > 0 { trees.push((path, tensors)) } else { plain.push(path) }
    }
    if !(trees.is_empty() && plain.is_empty()) {
        remarks.push(Remark::LeftOut { file: file(), trees, plain });
    }
    if !below.foreign.is_empty() {
        remarks.push(Remark::Foreign { file: file(), values: below.foreign });
    }
    if !foreign.is_empty() {
        remarks.push(Remark::Named { file: file(), names: foreign });
    }
    if !lost.is_empty() {
        let tensors = lost.into_iter().map(|(key, why)| (Key::from(&*key), why)).collect();
        remarks.push(Remark::Unreadable { file: file(), tensors });
    }
    Ok(contents)
}

/// Reads a file, or a part of one, that holds nothing but a tensor: what it is, where it begins in
/// the file, in bytes, and its strides, in elements.
///
/// # Errors
/// If it holds something else, or is packed.
#[cfg(feature = "files")]
pub(in crate::store) fn alone(window: Window<'_>) -> Result<(TensorInfo, u64, Shape)> {
    let (saved, container) = Container::read(window)?;
    let top = saved.root.map_err(|error| broken(&error))?;
    let meanings = Meanings::of(&saved.values);
    let tensor = meanings.tensor(top).ok_or_else(|| Error::corrupt("it is no tensor"))?;
    let form = stored(&tensor).map_err(|what| Error::new(ErrorKind::Unsupported, what))?;
    let storages = container.storages([tensor.storage].into_iter(), meanings)?;
    let Some(StorageBytes::Run { start, len }) = storages.get(tensor.storage.key) else {
        let what = "its bytes are packed, or of another byte order";
        return Err(Error::new(ErrorKind::Unsupported, what));
    };
    if form.end > *len {
        return Err(Error::corrupt("a tensor leaves its storage"));
    }
    Ok((form.info, start.saturating_add(form.begin), form.strides))
}

/// The error of a pickle that breaks.
pub(in crate::store) fn broken(error: &super::PickleError) -> Error {
    let kind = match error {
        super::PickleError::Values => ErrorKind::Limit,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("the pickle breaks: {error}"))
}

fn nothing(beside: &[(String, u64)], root: Option<&str>) -> Error {
    let what = match root {
        Some(root) => format!("the file has no tensor at {root:?}"),
        None => "the file has no state dict with tensors".to_owned(),
    };
    let error = Error::new(ErrorKind::Unsupported, what);
    let there: Vec<String> = beside
        .iter()
        .filter(|(_, tensors)| *tensors > 0)
        .map(|(path, tensors)| format!("{path} ({tensors} tensors)"))
        .collect();
    match there.as_slice() {
        [] => error,
        some if root.is_some() => error.hint(format!("it has tensors at {}", listed(some))),
        some => error.hint(format!(
            "it has what training keeps beside a model: {}; --root names a part to read all the same",
            listed(some)
        )),
    }
}

/// A tensor as it is stored in the terms of safetensors.
struct Form {
    info: TensorInfo,
    strides: Shape,
    /// Where it begins in its storage, and where its last element ends, in bytes.
    begin: u64,
    end: u64,
}

/// The dtype, shape and strides of a tensor, or why it can't be read.
fn stored(tensor: &TorchTensor<'_>) -> std::result::Result<Form, String> {
    let dtype = tensor.dtype.safetensors().ok_or_else(|| {
        format!("a tensor of dtype {}, which safetensors doesn't have", tensor.dtype)
    })?;
    if tensor.shape.len() > MAX_RANK {
        return Err(format!("a tensor of {} dimensions", tensor.shape.len()));
    }
    let impossible = || "a tensor whose sizes no storage has".to_owned();
    let strides: Option<Vec<u64>> =
        tensor.strides.iter().map(|stride| u64::try_from(*stride).ok()).collect();
    let (mut shape, mut strides) = (tensor.shape.to_vec(), strides.ok_or_else(impossible)?);
    let size = tensor.dtype.element_size();
    let is_empty = shape.contains(&0);
    let last = if is_empty {
        Some(0)
    } else {
        shape
            .iter()
            .zip(&strides)
            .try_fold(1u64, |span, (n, stride)| span.checked_add((n - 1).checked_mul(*stride)?))
    };
    let begin = tensor.offset.checked_mul(size);
    let begin = if is_empty { Some(0) } else { begin };
    let end = last.and_then(|last| last.checked_mul(size)?.checked_add(begin?));
    let (Some(begin), Some(end)) = (begin, end) else { return Err(impossible()) };
    if dtype == Dtype::F4 {
        // PyTorch counts pairs of elements.
        let pairs = Shape::from(shape.clone());
        let last = shape.last_mut().filter(|_| pairs.is_row_major(&strides));
        let last =
            last.ok_or_else(|| format!("a tensor of dtype {} with strides", tensor.dtype))?;
        *last = last.checked_mul(2).ok_or_else(impossible)?;
        strides = Shape::from(shape.clone()).contiguous_strides();
    }
    let info = TensorInfo::new(dtype, shape);
    info.nbytes().ok_or_else(impossible)?;
    Ok(Form { info, strides: strides.into(), begin, end })
}

struct Reader {
    storages: HashMap<String, StorageBytes>,
    /// Which storages are unpacked, and as which number.
    packed: HashMap<String, usize>,
    contents: Contents,
}

impl Reader {
    fn add(&mut self, key: String, tensor: &TorchTensor<'_>, form: Form) -> Result<()> {
        if key.len() > MAX_KEY_LEN {
            let why = format!("a key of {} bytes; {MAX_KEY_LEN} are read", key.len());
            return Err(Error::new(ErrorKind::Limit, why));
        }
        let (blob, begin, end) = self.place(tensor, &form).map_err(|error| error.at_key(&*key))?;
        match self.contents.tensors.entry(Key::from(&*key)) {
            Slot::Vacant(slot) if blob == FILE && form.info.shape.is_row_major(&form.strides) => {
                slot.insert((form.info, [begin, end]));
                Ok(())
            }
            Slot::Vacant(slot) => {
                let boxes = Boxes::strided(form.info.clone(), blob, begin, form.strides);
                let boxes = boxes.map_err(|error| error.at_key(&*key))?;
                self.contents.parts.insert(slot.key().clone(), boxes);
                slot.insert((form.info, [0, 0]));
                Ok(())
            }
            Slot::Occupied(_) => {
                Err(Error::corrupt("the key is there twice, as a text and by another path")
                    .at_key(key)
                    .hint("dicts in dicts make keys by their paths; --root names one of them"))
            }
        }
    }

    /// The bytes that a tensor's elements lie in: of which blob, the first, the one after the last.
    fn place(&mut self, tensor: &TorchTensor<'_>, form: &Form) -> Result<(Blob, u64, u64)> {
        let storage = tensor.storage.key;
        let Some(bytes) = self.storages.get(storage) else {
            return Err(Error::corrupt(format!("storage {storage:?} isn't there")));
        };
        if form.end > bytes.len() {
            return Err(Error::corrupt(format!(
                "the tensor ends at byte {} of storage {storage:?}, which has {}",
                form.end,
                bytes.len()
            )));
        }
        let (blob, start) = match bytes {
            StorageBytes::Run { start, .. } => (FILE, *start),
            StorageBytes::Packed(bytes) => {
                let number = match self.packed.get(storage) {
                    Some(number) => *number,
                    None => {
                        let number = self.contents.packed.len();
                        self.contents.packed.push((**bytes).clone());
                        self.packed.insert(storage.to_owned(), number);
                        number
                    }
                };
                (packed(number), 0)
            }
        };
        Ok((blob, start.saturating_add(form.begin), start.saturating_add(form.end)))
    }
}
