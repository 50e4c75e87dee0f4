//! Keys as lines of `PATTERN DTYPE [SHAPE]`, as `regraft inspect` and `plan` list them: those that
//! differ in their numbers alone are one line, with `{0..31}` or `{0..3,5}` for each number. A
//! model of 90,000 keys is thirty lines, which fit an address.

use regraft::overview::Gathered;
use regraft::tensor::{Dtype, Entry, Header, Shape, TensorInfo};

/// The most keys that lines may stand for.
const MOST: usize = 1_000_000;

/// The lines of a header.
pub(crate) fn write(header: &Header) -> String {
    let mut keys = Gathered::new();
    for (key, entry) in &header.tensors {
        keys.add(key, &entry.info);
    }
    let line = |line: &regraft::overview::Line<'_, &TensorInfo>| {
        format!("{} {}\n", line.exact(), line.shared)
    };
    keys.lines().iter().map(line).collect()
}

/// The header that lines say. Empty ones and those that begin with `#` are skipped.
///
/// # Errors
/// What is wrong, with the number of the line.
pub(crate) fn read(text: &str) -> Result<Header, String> {
    let mut header = Header::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        let (pattern, info) = parsed(line).map_err(|what| wrong(&what))?;
        let keys = expanded(pattern, MOST - header.tensors.len()).map_err(|what| wrong(&what))?;
        for key in keys {
            let entry = Entry { info: info.clone(), location: None };
            if header.tensors.insert(key.as_str().into(), entry).is_some() {
                return Err(wrong(&format!("the key {key} is there twice")));
            }
        }
    }
    Ok(header)
}

/// `model.{0..3}.w BF16 [2, 3]`
fn parsed(line: &str) -> Result<(&str, TensorInfo), String> {
    let form =
        || "a line is a key, a dtype and a shape, as in `model.norm.weight BF16 [4096]`".to_owned();
    let (pattern, info) = line.split_once(char::is_whitespace).ok_or_else(form)?;
    let (dtype, shape) = info.trim().split_once('[').ok_or_else(form)?;
    let dtype: Dtype =
        dtype.trim().parse().map_err(|_| format!("no dtype is called {}", dtype.trim()))?;
    // Behind the shape, how many keys there are may stand, as in what is printed.
    let (shape, _) = shape.split_once(']').ok_or_else(form)?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let sizes: Result<Vec<u64>, _> = sizes.map(str::parse).collect();
    let info = TensorInfo::new(dtype, Shape::from(sizes.map_err(|_| form())?));
    match info.nbytes() {
        Some(_) => Ok((pattern, info)),
        None => Err(format!("{info} is no whole number of bytes, or too large")),
    }
}

/// The keys that a pattern stands for, no more than `most`.
fn expanded(pattern: &str, most: usize) -> Result<Vec<String>, String> {
    let mut keys = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (numbers, behind) = after.split_once('}').ok_or("a `{` is not closed")?;
        let numbers = numbers_of(numbers, most)?;
        if keys.len().saturating_mul(numbers.len()) > most {
            return Err(format!("more than {MOST} keys"));
        }
        let with = |key: &String| {
            numbers.iter().map(move |n| format!("{key}{before}{n}")).collect::<Vec<_>>()
        };
        keys = keys.iter().flat_map(with).collect();
        rest = behind;
    }
    keys.iter_mut().for_each(|key| key.push_str(rest));
    if keys.len() > most { Err(format!("more than {MOST} keys")) } else { Ok(keys) }
}

/// `0..3,5`
fn numbers_of(text: &str, most: usize) -> Result<Vec<u64>, String> {
    let number =
        |text: &str| text.trim().parse::<u64>().map_err(|_| format!("`{text}` is no number"));
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once("..") {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if last.saturating_sub(first) >= most as u64 {
            return Err(format!("more than {MOST} keys"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        read(text).unwrap().tensors.keys().map(|key| key.to_string()).collect()
    }

    #[test]
    fn a_line_stands_for_its_keys() {
        let text = "# of a model\n\na.{0..2,5}.w BF16 [2, 3]  x 4\nb F32 []\n";
        assert_eq!(keys(text), ["a.0.w", "a.1.w", "a.2.w", "a.5.w", "b"]);
        let header = read(text).unwrap();
        assert_eq!(header.get("a.5.w").unwrap().to_string(), "BF16 [2, 3]");
        assert_eq!(header.get("b").unwrap().shape.len(), 0);
        assert_eq!(keys("a.{0..1}.{3,7} F32 [1]"), ["a.0.3", "a.0.7", "a.1.3", "a.1.7"]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let stretches: Vec<String> = (0..40).map(|n| (n * 2).to_string()).collect();
        let text =
            format!("a.{{{}}}.w F32 [2]\nb.{{0..9}}.{{0..3}} U8 [1, 2]\n", stretches.join(","));
        let header = read(&text).unwrap();
        assert_eq!(header.tensors.len(), 80);
        let again = read(&write(&header)).unwrap();
        assert_eq!(header.tensors.len(), again.tensors.len());
        assert!(header.tensors.iter().all(|(key, entry)| again.get(key) == Some(&entry.info)));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, what) in [
            ("a F32 [1]\nb", "line 2: a line is a key"),
            ("a F33 [1]", "no dtype is called F33"),
            ("a F32 [x]", "a line is a key"),
            ("a F32 [1]\na F32 [1]", "line 2: the key a is there twice"),
            ("a.{0..1 F32 [1]", "is not closed"),
            ("a.{0..x} F32 [1]", "`x` is no number"),
            ("a.{0..99999999999} F32 [1]", "more than 1000000 keys"),
            ("a.{0..9999}.{0..9999} F32 [1]", "more than 1000000 keys"),
            ("a F4 [1]", "no whole number of bytes"),
            ("a F32 [18446744073709551615, 9]", "too large"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(what), "{text}: {found}");
        }
    }
}
