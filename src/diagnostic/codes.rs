//! The registry of diagnostic codes. A code is never reused; each has an entry in
//! `docs/diagnostics.md`.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A code, as `RG101`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RG{:03}", self.0)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_prefix("RG").and_then(|number| number.parse().ok());
        number.map(Code).ok_or_else(|| D::Error::custom(format!("{text:?} is no code")))
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        $($(#[$doc])* pub const $name: Code = Code($number);)*

        /// Every code with its name, in order.
        pub const ALL: &[(Code, &str)] = &[$((Code($number), stringify!($name))),*];
    };
}

codes! {
    // 1xx: the text
    /// The text doesn't parse.
    SYNTAX = 101;
    /// A statement, clause or word that the language doesn't have.
    UNKNOWN_STATEMENT = 102;
    /// An op that the language doesn't have.
    UNKNOWN_OP = 103;
    /// An op with the wrong number or kind of arguments.
    OP_ARGUMENTS = 104;
    /// An op, or a use of it, that this version doesn't support yet.
    NOT_SUPPORTED = 105;
    /// A regular expression that doesn't compile.
    BAD_REGEX = 106;
    /// A pattern that can't mean anything.
    BAD_PATTERN = 107;
    /// A rule file that can't be found.
    UNKNOWN_RULES = 108;
    /// A rule file that includes itself.
    INCLUDE_CYCLE = 109;
    /// Nesting, includes or expansion beyond the limits.
    LIMIT = 110;
    /// A rule file outside of the folder from which rule files may be used.
    OUTSIDE = 111;

    // 2xx: what the rules mean
    /// A capture that only one side of `<->` has.
    CAPTURE_UNBOUND = 201;
    /// A capture written differently at two places of one rule.
    CAPTURE_CONFLICT = 202;
    /// Arithmetic on an index that can't be inverted.
    NOT_INVERTIBLE_ARITHMETIC = 203;
    /// A step that can't be read backwards.
    NOT_INVERTIBLE = 204;
    /// Two rules that can give one key.
    SAME_IMAGE = 205;
    /// A rule that can never fire, as earlier ones take its keys.
    DEAD_RULE = 206;
    /// A name without a definition.
    UNKNOWN_NAME = 207;
    /// A layout that the rule file doesn't have.
    UNKNOWN_LAYOUT = 208;
    /// A config field that isn't there.
    MISSING_CONFIG = 209;
    /// A value of the wrong type, or arithmetic that fails.
    BAD_VALUE = 210;
    /// The same thing defined twice.
    DUPLICATE = 211;
    /// An `example` that the rules don't meet.
    EXAMPLE_FAILED = 212;
    /// A parameter that must be given.
    MISSING_PARAMETER = 213;
    /// How many sources or targets the joint ops take and give.
    ARITY = 214;
    /// Ties that go round in a circle.
    TIE_CYCLE = 215;

    /// A `<->` rule that two keys make one of, so that reading backwards gives the wrong one.
    NOT_ONE_TO_ONE = 216;

    // 3xx: rules against a checkpoint
    /// Two sources give one key.
    COLLISION = 301;
    /// An instance of a rule that lacks some of its sources.
    INCOMPLETE = 302;
    /// Shapes or dtypes that don't fit an op.
    SHAPE = 303;
    /// A rule that matched nothing.
    UNMATCHED_RULE = 304;
    /// A key of the target manifest that nothing gives.
    MISSING_KEY = 305;
    /// A key that the target manifest doesn't know.
    UNEXPECTED_KEY = 306;
    /// A key whose shape or dtype isn't what the target manifest says.
    MISMATCHED_KEY = 307;
    /// An `expect` that doesn't hold.
    EXPECTATION = 308;
    /// Keys in the target layout already, among keys that are not.
    MIXED_LAYOUT = 309;
    /// The checkpoint is in the target layout already.
    ALREADY_THERE = 310;
    /// Keys were dropped by a rule.
    DROPPED = 311;
    /// A lossy step.
    LOSSY = 312;
    /// Wrapper segments were stripped.
    STRIPPED = 313;
    /// FSDP1 flat parameters: one key stands for many tensors.
    FLAT_PARAMETER = 314;
    /// A tied key that is there and differs from its source.
    TIE_DIFFERS = 315;
    /// A tied key that can't be taken from its source.
    TIE_REFUSED = 316;
    /// A tied key that is missing along with all its sources.
    TIE_ABSENT = 317;
    /// A tie was made or dropped.
    TIE_APPLIED = 318;
    /// A base prefix was added or stripped so that keys meet the target manifest.
    PREFIX_CHANGED = 319;
    /// A step of a two-way rule file that can't be undone was left out while reading backwards.
    NOT_REVERSED = 320;
    /// None of the rules fits any key.
    NEITHER_LAYOUT = 321;
    /// A condition that can't be decided.
    UNDECIDED = 322;
    /// Keys were turned back as the record of a conversion says.
    RESTORED = 323;
    /// A step that can't be undone, where reading backwards would lose names or values.
    LOSSY_REVERSE = 324;
    /// A quantized tensor is moved in other ways than its scales, or through one of its blocks.
    QUANTIZED_BLOCK = 325;
    /// A config field that should say whether embeddings are tied, and is no boolean.
    TIE_FLAG = 326;
    /// What belongs to a tensor stays behind where the tensor goes.
    STRANDED = 327;
    /// Numbers with leading zeros, which an index doesn't match.
    PADDED_NUMBER = 328;
    /// A tensor's rows are put into another order, and what belongs to each of them isn't.
    HALF_MOVED = 329;
    /// A leading wrapper that a few keys lack, so that it isn't stripped.
    NOT_STRIPPED = 330;
    /// A layout that was asked for and to which no rule leads.
    NO_WAY = 331;
    /// A result without a key, of a checkpoint that has some.
    NO_KEYS = 332;
    /// A rule that takes what looks like its own results.
    TAKEN_AGAIN = 333;
    /// Of numbered files some are not there.
    MISSING_FILE = 335;
    /// A file beside the shards holds keys that their index doesn't list.
    UNLISTED_KEY = 336;
    /// Layers that the config counts, and that the checkpoint lacks.
    MISSING_LAYER = 337;
    /// Empty tensors where others of their list are not: what ZeRO-3 leaves of parameters that were
    /// not gathered.
    PLACEHOLDER = 338;
    /// A key that no safetensors file can hold.
    UNWRITABLE_KEY = 339;
    /// Finite values became infinite or NaN while they were computed.
    OVERFLOW = 340;
    /// Integers that a cast of many keys to a float dtype left as they are.
    LEFT_INTEGERS = 341;
    /// Heads of two sizes in one attention: one of the numbers of heads is wrong.
    HEAD_SIZES = 345;
    /// A state dict that lies among other things in its file.
    ROOT = 346;
    /// What a file has besides the state dict that was taken of it.
    LEFT_OUT = 347;
    /// A value of a class that regraft doesn't know, in a state dict.
    FOREIGN_VALUE = 348;
    /// A tensor that can't be read.
    UNREADABLE = 349;
    /// An index that says another total size than the tensors have.
    TOTAL_SIZE = 350;
    /// Tensors that should be the same in the files of all ranks, and aren't.
    UNEQUAL = 351;
    /// Keys that no rule takes, in a file that is `strict`.
    NOT_TAKEN = 352;
    /// config.json says that the checkpoint is quantized, and nothing of the result is.
    STALE_CONFIG = 353;
    /// Parts of tensors that were asked for and that aren't there.
    NO_PART = 354;
    /// Names of training code's wrappers stay in keys of which nothing else is known.
    WRAPPED = 355;
    /// Tensors of which one length is asked for, and that have several, or not that dimension.
    UNLIKE_SIZES = 356;
    /// Numbers that are counted, and of which some are not there.
    NUMBERS_MISSING = 357;
}
