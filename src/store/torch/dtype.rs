//! [`TorchDtype`]: the dtypes of PyTorch 2.15 by their names, and which dtype of a safetensors file
//! each is.

use std::fmt;

use crate::tensor::Dtype;

macro_rules! torch_dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bytes:literal $($file:ident)?;)*) => {
        /// What one element of a tensor is, as PyTorch names it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum TorchDtype {
            $($(#[$doc])* #[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl TorchDtype {
            /// Every dtype.
            pub const ALL: &[TorchDtype] = &[$(TorchDtype::$variant),*];

            /// Its name, without `torch.`.
            pub const fn name(self) -> &'static str {
                match self { $(TorchDtype::$variant => $name,)* }
            }

            /// Bytes of one element (`element_size()`): at least 1, as PyTorch keeps dtypes of
            /// fewer bits in whole bytes.
            pub const fn element_size(self) -> u64 {
                match self { $(TorchDtype::$variant => $bytes,)* }
            }

            /// The dtype that a safetensors file gives such a tensor, if the format has one.
            pub const fn safetensors(self) -> Option<Dtype> {
                match self { $($(TorchDtype::$variant => Some(Dtype::$file),)?)* _ => None }
            }
        }
    };
}

torch_dtypes! {
    Float32 "float32" 4 F32;
    Float64 "float64" 8 F64;
    Float16 "float16" 2 F16;
    BFloat16 "bfloat16" 2 BF16;
    Float8E4m3fn "float8_e4m3fn" 1 F8_E4M3;
    Float8E5m2 "float8_e5m2" 1 F8_E5M2;
    Float8E4m3fnuz "float8_e4m3fnuz" 1 F8_E4M3FNUZ;
    Float8E5m2fnuz "float8_e5m2fnuz" 1 F8_E5M2FNUZ;
    Float8E8m0fnu "float8_e8m0fnu" 1 F8_E8M0;
    /// Two elements a byte: PyTorch counts the pairs, safetensors the elements.
    Float4E2m1fnX2 "float4_e2m1fn_x2" 1 F4;
    /// Not a dtype of PyTorch: MXFP6, which safetensors has.
    Float6E2m3 "float6_e2m3" 1 F6_E2M3;
    /// Not a dtype of PyTorch: MXFP6, which safetensors has.
    Float6E3m2 "float6_e3m2" 1 F6_E3M2;
    Int8 "int8" 1 I8;
    UInt8 "uint8" 1 U8;
    Int16 "int16" 2 I16;
    UInt16 "uint16" 2 U16;
    Int32 "int32" 4 I32;
    UInt32 "uint32" 4 U32;
    Int64 "int64" 8 I64;
    UInt64 "uint64" 8 U64;
    Bool "bool" 1 Bool;
    Complex32 "complex32" 4;
    Complex64 "complex64" 8 C64;
    Complex128 "complex128" 16;
    QInt8 "qint8" 1;
    QUInt8 "quint8" 1;
    QInt32 "qint32" 4;
    QUInt4x2 "quint4x2" 1;
    QUInt2x4 "quint2x4" 1;
    Int1 "int1" 1;
    Int2 "int2" 1;
    Int3 "int3" 1;
    Int4 "int4" 1;
    Int5 "int5" 1;
    Int6 "int6" 1;
    Int7 "int7" 1;
    UInt1 "uint1" 1;
    UInt2 "uint2" 1;
    UInt3 "uint3" 1;
    UInt4 "uint4" 1;
    UInt5 "uint5" 1;
    UInt6 "uint6" 1;
    UInt7 "uint7" 1;
    Bits1x8 "bits1x8" 1;
    Bits2x4 "bits2x4" 1;
    Bits4x2 "bits4x2" 1;
    Bits8 "bits8" 1;
    Bits16 "bits16" 2;
}

impl TorchDtype {
    /// The dtype of a name, with or without `torch.`.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix("torch.").unwrap_or(name);
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }
}

impl From<Dtype> for TorchDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bool => TorchDtype::Bool,
            Dtype::F4 => TorchDtype::Float4E2m1fnX2,
            Dtype::F6_E2M3 => TorchDtype::Float6E2m3,
            Dtype::F6_E3M2 => TorchDtype::Float6E3m2,
            Dtype::U8 => TorchDtype::UInt8,
            Dtype::I8 => TorchDtype::Int8,
            Dtype::F8_E5M2 => TorchDtype::Float8E5m2,
            Dtype::F8_E4M3 => TorchDtype::Float8E4m3fn,
            Dtype::F8_E8M0 => TorchDtype::Float8E8m0fnu,
            Dtype::F8_E4M3FNUZ => TorchDtype::Float8E4m3fnuz,
            Dtype::F8_E5M2FNUZ => TorchDtype::Float8E5m2fnuz,
            Dtype::I16 => TorchDtype::Int16,
            Dtype::U16 => TorchDtype::UInt16,
            Dtype::F16 => TorchDtype::Float16,
            Dtype::BF16 => TorchDtype::BFloat16,
            Dtype::I32 => TorchDtype::Int32,
            Dtype::U32 => TorchDtype::UInt32,
            Dtype::F32 => TorchDtype::Float32,
            Dtype::C64 => TorchDtype::Complex64,
            Dtype::F64 => TorchDtype::Float64,
            Dtype::I64 => TorchDtype::Int64,
            Dtype::U64 => TorchDtype::UInt64,
        }
    }
}

impl fmt::Display for TorchDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_dtype_is_one_of_torch_and_back() {
        for dtype in Dtype::ALL {
            assert_eq!(TorchDtype::from(dtype).safetensors(), Some(dtype));
        }
        for dtype in TorchDtype::ALL {
            assert_eq!(TorchDtype::from_name(&format!("torch.{dtype}")), Some(*dtype));
            if let Some(file) = dtype.safetensors() {
                assert_eq!(u64::from(file.bits().div_ceil(8)), dtype.element_size(), "{dtype}");
            }
        }
        assert_eq!(TorchDtype::from_name("float"), None);
    }
}
