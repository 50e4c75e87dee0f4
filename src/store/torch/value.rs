//! [`Values`]: what a pickle makes, each value by its number.
//!
//! A value names others by their numbers, so that one that stands in two places is one value, and a
//! dict may hold itself. Whoever follows numbers must expect that.

/// A value, by its number. Numbers count up in the order in which a pickle makes its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(super) u32);

/// One value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `None`
    None,
    /// `True` or `False`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A longer integer: two's complement, little-endian.
    Long(Box<[u8]>),
    /// A float.
    Float(f64),
    /// A string; what is not UTF-8 in it is replaced.
    Text(Box<str>),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A set.
    Set(Vec<Id>),
    /// A dict: its entries in the order in which they were set. A key that is set twice is there
    /// twice.
    Dict(Vec<(Id, Id)>),
    /// A name that the pickle imports: its module and its name, joined by a dot.
    Global(Box<str>),
    /// Something that lies outside the pickle, by what names it there.
    Persistent(Id),
    /// What calling a function would give. It is not called.
    Call(Box<Call>),
    /// A number whose text isn't one.
    Opaque,
}

/// A call, and what is done to its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What is called.
    pub function: Id,
    /// Its arguments, a tuple.
    pub arguments: Id,
    /// Entries that are set on the result, as on a dict.
    pub entries: Vec<(Id, Id)>,
    /// Values that are added to the result, as to a list.
    pub items: Vec<Id>,
    /// What its `__setstate__` gets.
    pub state: Option<Id>,
}

impl Call {
    pub(super) fn new(function: Id, arguments: Id) -> Self {
        Self { function, arguments, entries: Vec::new(), items: Vec::new(), state: None }
    }
}

/// All values of a pickle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values(pub(super) Vec<Value>);

impl Values {
    /// A value by its number.
    pub fn get(&self, id: Id) -> Option<&Value> {
        self.0.get(usize::try_from(id.0).ok()?)
    }

    /// All values in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Value)> {
        (0..).map(Id).zip(&self.0)
    }

    /// The items of a tuple; none of anything else.
    pub fn tuple(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Some(Value::Tuple(items)) => items,
            _ => &[],
        }
    }

    /// The items of a list.
    pub(super) fn list(&self, id: Id) -> Option<&[Id]> {
        match self.get(id)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// A string.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The name that is imported, with its module.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.get(id)? {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }

    /// The entries of a dict or an `OrderedDict`.
    pub fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id)? {
            Value::Dict(entries) => Some(entries),
            Value::Call(call) if self.global(call.function) == Some(ORDERED_DICT) => {
                Some(&call.entries)
            }
            _ => None,
        }
    }
}

/// The class whose instances are dicts.
pub(super) const ORDERED_DICT: &str = "collections.OrderedDict";
