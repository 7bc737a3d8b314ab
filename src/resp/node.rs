//! One node of a reply, as C sees it.
//!
//! Guarantees: 24 bytes with a frozen layout (`vigie_node`). Leaves to others: building tables of them (`tree`).

/// What a node is; the numbers are those of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// There is no such node.
    None = 0,
    /// No value.
    Null = 1,
    /// A bulk string.
    String = 2,
    /// A simple string.
    Status = 3,
    /// An error.
    Error = 4,
    /// A whole number.
    Int = 5,
    /// A floating point number.
    Double = 6,
    /// True or false.
    Bool = 7,
    /// A whole number of any size, as text.
    Bignum = 8,
    /// A text with a format, which is dropped.
    Verbatim = 9,
    /// A list.
    Array = 10,
    /// Keys and values, alternating.
    Map = 11,
    /// A list without order.
    Set = 12,
    /// A message out of band.
    Push = 13,
}

impl Kind {
    const ALL: [Self; 14] = [
        Self::None,
        Self::Null,
        Self::String,
        Self::Status,
        Self::Error,
        Self::Int,
        Self::Double,
        Self::Bool,
        Self::Bignum,
        Self::Verbatim,
        Self::Array,
        Self::Map,
        Self::Set,
        Self::Push,
    ];

    /// The kind with this number; `None` for an unknown one.
    pub fn from_u8(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::None)
    }

    /// Whether its value is a place in the data block.
    pub fn is_text(self) -> bool {
        matches!(self, Self::String | Self::Status | Self::Error | Self::Bignum | Self::Verbatim)
    }

    /// Whether it has children.
    pub fn is_aggregate(self) -> bool {
        matches!(self, Self::Array | Self::Map | Self::Set | Self::Push)
    }
}

/// A node of a reply: `vigie_node` of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Node {
    /// The number of its [`Kind`].
    pub kind: u8,
    /// 0.
    pub flags: u8,
    /// 0.
    pub reserved: u16,
    /// Children of an aggregate, else 0.
    pub count: u32,
    /// INT, BOOL: the value; DOUBLE: its bits; text: offset in the data; aggregate: its first child.
    pub value: u64,
    /// Bytes of text, else 0.
    pub len: u64,
}

const _: () = assert!(size_of::<Node>() == 24);

impl Node {
    /// A node without a value.
    pub const NULL: Self = Self { kind: Kind::Null as u8, flags: 0, reserved: 0, count: 0, value: 0, len: 0 };

    /// What it is.
    pub fn kind(&self) -> Kind {
        Kind::from_u8(self.kind)
    }

    #[inline]
    pub(super) fn text(kind: Kind, offset: usize, len: usize) -> Self {
        Self { kind: kind as u8, value: offset as u64, len: len as u64, ..Self::NULL }
    }

    pub(super) fn int(value: i64) -> Self {
        Self { kind: Kind::Int as u8, value: value as u64, ..Self::NULL }
    }

    pub(super) fn double(value: f64) -> Self {
        Self { kind: Kind::Double as u8, value: value.to_bits(), ..Self::NULL }
    }

    pub(super) fn bool(value: bool) -> Self {
        Self { kind: Kind::Bool as u8, value: u64::from(value), ..Self::NULL }
    }

    pub(super) fn aggregate(kind: Kind, first: usize, count: u32) -> Self {
        let value = if count == 0 { 0 } else { first as u64 };
        Self { kind: kind as u8, count, value, ..Self::NULL }
    }
}
