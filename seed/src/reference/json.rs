//! JSON as Python's `json.loads` takes it: with `NaN` and `Infinity`, integers of any size, lone
//! surrogates, and the last of equal keys.
//!
//! Source: the `json` module's documentation, and RFC 8259 for the rest.

use super::{PyNumber, Raised};

/// A value, as far as the reference looks at one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    /// `null`
    Null,
    /// A boolean or an integer: Python counts both as integers.
    Int(PyNumber),
    /// A number with a fraction or an exponent, or a constant like `NaN`.
    Float,
    /// A string; a lone surrogate is replaced.
    Text(String),
    /// An array; only that it is one.
    List,
    /// An object, in order.
    Dict(Vec<(String, Json)>),
}

impl Json {
    /// The value of a key: the last of that name.
    pub(crate) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Dict(entries) => {
                entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// `type(value).__name__`
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Json::Null => "NoneType",
            Json::Int(PyNumber::Bool(_)) => "bool",
            Json::Int(_) => "int",
            Json::Float => "float",
            Json::Text(_) => "str",
            Json::List => "list",
            Json::Dict(_) => "dict",
        }
    }
}

/// How deep values may nest. CPython's own limit depends on its build.
const MAX_DEPTH: usize = 900;

/// The most digits that Python turns into an integer.
const MAX_DIGITS: usize = 4300;

/// Parses a text. `None` where it is not JSON (Python's `JSONDecodeError`).
///
/// # Errors
/// What `json.loads` raises besides that: `RecursionError` for deep nesting, `ValueError` for an
/// integer of more than 4300 digits.
pub(crate) fn parse(text: &str) -> Result<Option<Json>, Raised> {
    let mut parser = Parser { bytes: text.as_bytes(), at: 0 };
    let value = match parser.value(0) {
        Ok(value) => value,
        Err(Stop::NotJson) => return Ok(None),
        Err(Stop::Raised(raised)) => return Err(raised),
    };
    parser.blank();
    Ok((parser.at == text.len()).then_some(value))
}

enum Stop {
    NotJson,
    Raised(Raised),
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(text.as_bytes()));
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Raised(Raised::new(
                "RecursionError",
                "maximum recursion depth exceeded",
            )));
        }
        self.blank();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) if self.eat("null") => Ok(Json::Null),
            Some(_) if self.eat("true") => Ok(Json::Int(PyNumber::Bool(true))),
            Some(_) if self.eat("false") => Ok(Json::Int(PyNumber::Bool(false))),
            Some(_) if self.eat("NaN") || self.eat("Infinity") => Ok(Json::Float),
            _ => Err(Stop::NotJson),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Stop> {
        self.at += 1;
        let mut entries = Vec::new();
        self.blank();
        if self.eat("}") {
            return Ok(Json::Dict(entries));
        }
        loop {
            self.blank();
            if self.peek() != Some(b'"') {
                return Err(Stop::NotJson);
            }
            let key = self.string()?;
            self.blank();
            if !self.eat(":") {
                return Err(Stop::NotJson);
            }
            entries.push((key, self.value(depth + 1)?));
            self.blank();
            if self.eat("}") {
                return Ok(Json::Dict(entries));
            }
            if !self.eat(",") {
                return Err(Stop::NotJson);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, Stop> {
        self.at += 1;
        self.blank();
        if self.eat("]") {
            return Ok(Json::List);
        }
        loop {
            self.value(depth + 1)?;
            self.blank();
            if self.eat("]") {
                return Ok(Json::List);
            }
            if !self.eat(",") {
                return Err(Stop::NotJson);
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Json, Stop> {
        let start = self.at;
        if self.eat("-Infinity") {
            return Ok(Json::Float);
        }
        self.eat("-");
        // Digits after a leading zero are left, and make the text after the value.
        if !self.eat("0") && self.digits() == 0 {
            return Err(Stop::NotJson);
        }
        let integer_end = self.at;
        let mut float = false;
        if self.eat(".") {
            if self.digits() > 0 {
                float = true;
            } else {
                self.at = integer_end;
            }
        }
        let mantissa_end = self.at;
        if self.eat("e") || self.eat("E") {
            let _ = self.eat("+") || self.eat("-");
            if self.digits() > 0 {
                float = true;
            } else {
                self.at = mantissa_end;
            }
        }
        if float {
            return Ok(Json::Float);
        }
        let digits = self
            .bytes
            .get(start..integer_end)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .ok_or(Stop::NotJson)?;
        let count = digits.trim_start_matches('-').len();
        if count > MAX_DIGITS {
            let message = format!(
                "Exceeds the limit ({MAX_DIGITS} digits) for integer string conversion: value has {count} digits; \
                 use sys.set_int_max_str_digits() to increase the limit"
            );
            return Err(Stop::Raised(Raised::new("ValueError", message)));
        }
        Ok(Json::Int(PyNumber::from_digits(digits)))
    }

    fn string(&mut self) -> Result<String, Stop> {
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = self.peek().ok_or(Stop::NotJson)?;
            self.at += 1;
            match byte {
                b'"' => return Ok(String::from_utf8_lossy(&text).into_owned()),
                b'\\' => {
                    let c = self.escape()?;
                    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..=0x1F => return Err(Stop::NotJson),
                _ => text.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Stop> {
        let byte = self.peek().ok_or(Stop::NotJson)?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                let after_high = self.at;
                if (0xD800..0xDC00).contains(&high) && self.eat("\\u") {
                    let low = self.hex4()?;
                    if (0xDC00..0xE000).contains(&low) {
                        return Ok(char::from_u32(
                            0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                        )
                        .unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                    self.at = after_high;
                }
                char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(Stop::NotJson),
        })
    }

    fn hex4(&mut self) -> Result<u32, Stop> {
        let digits = self
            .bytes
            .get(self.at..self.at + 4)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .ok_or(Stop::NotJson)?;
        self.at += 4;
        Ok(digits
            .iter()
            .filter_map(|digit| char::from(*digit).to_digit(16))
            .fold(0, |value, digit| value * 16 + digit))
    }
}
