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
    /// A longer integer: two's complement, little-endian ([`Values::bytes`]).
    Long(Span),
    /// A float.
    Float(f64),
    /// A string ([`Values::text`]).
    Text(Span),
    /// Bytes ([`Values::bytes`]).
    Bytes(Span),
    /// A tuple ([`Values::tuple`]).
    Tuple(Span),
    /// A list ([`Values::list`]).
    List(Box<Vec<Id>>),
    /// A set ([`Values::set`]).
    Set(Box<Vec<Id>>),
    /// A dict: its entries in the order in which they were set. A key that is set twice is there
    /// twice.
    Dict(Box<Vec<(Id, Id)>>),
    /// A name that the pickle imports: its module and its name, joined by a dot
    /// ([`Values::global`]).
    Global(Span),
    /// Something that lies outside the pickle, by what names it there.
    Persistent(Id),
    /// What calling a function would give. It is not called.
    Call(Box<Call>),
    /// A number whose text isn't one, or a string that isn't UTF-8.
    Opaque,
}

/// Where in [`Values`] the content of a value that can't change lies: a state dict has a million of
/// them, which would each be an allocation otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    len: u32,
}

impl Span {
    fn of<T>(self, all: &[T]) -> &[T] {
        let (start, len) = (usize::try_from(self.start), usize::try_from(self.len));
        let (Ok(start), Ok(len)) = (start, len) else { return &[] };
        all.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default()
    }

    /// Of what is put behind all that is there. A pickle is shorter than four gigabytes.
    fn behind<T: Clone>(all: &mut Vec<T>, more: &[T]) -> Self {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let span = Self { start: number(all.len()), len: number(more.len()) };
        all.extend_from_slice(more);
        span
    }
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
pub struct Values {
    pub(super) all: Vec<Value>,
    /// What strings, names and bytes have.
    bytes: Vec<u8>,
    /// What tuples have.
    items: Vec<Id>,
}

impl Values {
    /// A value by its number.
    pub fn get(&self, id: Id) -> Option<&Value> {
        self.all.get(usize::try_from(id.0).ok()?)
    }

    /// All values in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Value)> {
        (0..).map(Id).zip(&self.all)
    }

    /// The items of a tuple; none of anything else.
    pub fn tuple(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Some(Value::Tuple(items)) => items.of(&self.items),
            _ => &[],
        }
    }

    /// The items of a list.
    pub fn list(&self, id: Id) -> Option<&[Id]> {
        match self.get(id)? {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The items of a set.
    pub fn set(&self, id: Id) -> Option<&[Id]> {
        match self.get(id)? {
            Value::Set(items) => Some(items),
            _ => None,
        }
    }

    /// Bytes, or those of a long integer.
    pub fn bytes(&self, id: Id) -> Option<&[u8]> {
        match self.get(id)? {
            Value::Bytes(bytes) | Value::Long(bytes) => Some(bytes.of(&self.bytes)),
            _ => None,
        }
    }

    /// A string.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id)? {
            Value::Text(text) => self.text_at(*text),
            _ => None,
        }
    }

    /// The name that is imported, with its module.
    pub fn global(&self, id: Id) -> Option<&str> {
        match self.get(id)? {
            Value::Global(name) => self.text_at(*name),
            _ => None,
        }
    }

    fn text_at(&self, span: Span) -> Option<&str> {
        std::str::from_utf8(span.of(&self.bytes)).ok()
    }

    pub(super) fn new_text(&mut self, text: &str) -> Value {
        Value::Text(Span::behind(&mut self.bytes, text.as_bytes()))
    }

    pub(super) fn new_global(&mut self, module: &str, name: &str) -> Value {
        self.new_name(&format!("{module}.{name}"))
    }

    pub(super) fn new_name(&mut self, name: &str) -> Value {
        Value::Global(Span::behind(&mut self.bytes, name.as_bytes()))
    }

    /// Puts a value behind all others.
    pub(super) fn add(&mut self, value: Value) -> Id {
        let id = Id(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.all.push(value);
        id
    }

    /// Puts a value in the place of another.
    pub(super) fn put(&mut self, id: Id, value: Value) {
        if let Some(place) = usize::try_from(id.0).ok().and_then(|at| self.all.get_mut(at)) {
            *place = value;
        }
    }

    pub(super) fn new_bytes(&mut self, bytes: &[u8]) -> Span {
        Span::behind(&mut self.bytes, bytes)
    }

    pub(super) fn new_tuple(&mut self, items: &[Id]) -> Value {
        Value::Tuple(Span::behind(&mut self.items, items))
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
