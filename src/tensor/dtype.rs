//! The 22 dtypes of the safetensors format.
//!
//! Source: the `Dtype` enumeration of the `safetensors` crate 0.8 (`safetensors/src/tensor.rs`); a
//! test holds the two together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident $text:literal $bits:literal;)*) => {
        /// What one element is. The list is that of the safetensors format and grows with it; a match
        /// on all of it is wanted, so that code which reads elements is told of a new dtype.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[allow(non_camel_case_types)]
        pub enum Dtype {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Dtype {
            /// Every dtype.
            pub const ALL: [Dtype; 22] = [$(Dtype::$name),*];

            /// Bits of one element: 4, 6, 8, 16, 32 or 64.
            pub const fn bits(self) -> u32 {
                match self { $(Dtype::$name => $bits,)* }
            }

            /// Bytes that one element takes where elements are told apart: those of less than a byte
            /// count as one.
            pub(crate) fn element(self) -> u64 {
                u64::from(self.bits() / 8).max(1)
            }

            /// Whether its elements are integers or booleans: indices, counts, masks, packed words.
            pub const fn is_integer(self) -> bool {
                use Dtype::{Bool, I8, I16, I32, I64, U8, U16, U32, U64};
                matches!(self, Bool | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64)
            }

            /// Its name in a safetensors header.
            pub const fn name(self) -> &'static str {
                match self { $(Dtype::$name => $text,)* }
            }
        }

        impl FromStr for Dtype {
            type Err = UnknownDtype;

            fn from_str(text: &str) -> Result<Self, UnknownDtype> {
                match text { $($text => Ok(Dtype::$name),)* _ => Err(UnknownDtype) }
            }
        }
    };
}

/// No dtype of the safetensors format has such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownDtype;

impl std::fmt::Display for UnknownDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no dtype of the safetensors format has such a name")
    }
}

impl std::error::Error for UnknownDtype {}

dtypes! {
    /// A boolean, one byte.
    Bool "BOOL" 8;
    /// MXFP4: 4-bit float, two a byte.
    F4 "F4" 4;
    /// MXFP6: 6-bit float, 2 exponent and 3 mantissa bits.
    F6_E2M3 "F6_E2M3" 6;
    /// MXFP6: 6-bit float, 3 exponent and 2 mantissa bits.
    F6_E3M2 "F6_E3M2" 6;
    /// Unsigned byte.
    U8 "U8" 8;
    /// Signed byte.
    I8 "I8" 8;
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8_E5M2 "F8_E5M2" 8;
    /// 8-bit float, 4 exponent and 3 mantissa bits (finite values and NaN only).
    F8_E4M3 "F8_E4M3" 8;
    /// 8-bit exponent alone, a block scale.
    F8_E8M0 "F8_E8M0" 8;
    /// 8-bit float, 4 exponent and 3 mantissa bits, no negative zero.
    F8_E4M3FNUZ "F8_E4M3FNUZ" 8;
    /// 8-bit float, 5 exponent and 2 mantissa bits, no negative zero.
    F8_E5M2FNUZ "F8_E5M2FNUZ" 8;
    /// Signed 16-bit integer.
    I16 "I16" 16;
    /// Unsigned 16-bit integer.
    U16 "U16" 16;
    /// IEEE half precision.
    F16 "F16" 16;
    /// Brain float.
    BF16 "BF16" 16;
    /// Signed 32-bit integer.
    I32 "I32" 32;
    /// Unsigned 32-bit integer.
    U32 "U32" 32;
    /// IEEE single precision.
    F32 "F32" 32;
    /// Complex of two F32.
    C64 "C64" 64;
    /// IEEE double precision.
    F64 "F64" 64;
    /// Signed 64-bit integer.
    I64 "I64" 64;
    /// Unsigned 64-bit integer.
    U64 "U64" 64;
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether every value of one dtype is a value of the other, so that casting there and back changes
/// nothing.
pub fn widens(from: Dtype, to: Dtype) -> bool {
    use Dtype::{
        BF16, Bool, F4, F6_E2M3, F6_E3M2, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ, F8_E8M0, F16,
        F32, F64, I8, I16, I32, I64, U8, U16, U32, U64,
    };
    if from == to {
        return true;
    }
    match from {
        Bool => matches!(to, U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64 | F16 | BF16 | F32 | F64),
        U8 => matches!(to, U16 | I16 | U32 | I32 | U64 | I64 | F16 | BF16 | F32 | F64),
        I8 => matches!(to, I16 | I32 | I64 | F16 | BF16 | F32 | F64),
        U16 => matches!(to, U32 | I32 | U64 | I64 | F32 | F64),
        I16 => matches!(to, I32 | I64 | F32 | F64),
        U32 => matches!(to, U64 | I64 | F64),
        I32 => matches!(to, I64 | F64),
        F4 | F6_E2M3 | F6_E3M2 | F8_E4M3 | F8_E5M2 | F8_E4M3FNUZ | F8_E5M2FNUZ => {
            matches!(to, F16 | BF16 | F32 | F64)
        }
        F8_E8M0 => matches!(to, BF16 | F32 | F64),
        F16 | BF16 => matches!(to, F32 | F64),
        F32 => to == F64,
        U64 | I64 | F64 | Dtype::C64 => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
            assert_eq!(dtype.to_string(), dtype.name());
            let json = serde_json::to_string(&dtype).unwrap();
            assert_eq!(json, format!("\"{}\"", dtype.name()));
            assert_eq!(serde_json::from_str::<Dtype>(&json).unwrap(), dtype);
        }
    }

    #[test]
    fn each_dtype_is_one_of_the_formats_and_all_are_there() {
        for dtype in Dtype::ALL {
            let theirs: safetensors::Dtype = serde_json::from_str(&format!("\"{dtype}\"")).unwrap();
            assert_eq!(theirs.bitsize(), dtype.bits() as usize, "{dtype}");
        }
        // Their enumeration can't be listed, but its last member tells how many there are.
        assert_eq!(safetensors::Dtype::U64 as usize + 1, Dtype::ALL.len());
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["", "f32", "F32 ", "float32", "F6", "BOOLEAN"] {
            assert_eq!(text.parse::<Dtype>(), Err(UnknownDtype), "{text}");
        }
    }
}
