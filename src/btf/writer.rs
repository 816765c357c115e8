//! Writes BTF: enough to say what a map's key and value are, where the value holds a lock.

/// Types added one after the other; their ids count from 1.
///
/// ```
/// use mapemu::btf::Writer;
///
/// let mut btf = Writer::new();
/// let u32_id = btf.int("u32", 4);
/// let u64_id = btf.int("u64", 8);
/// let lock_id = btf.structure("bpf_spin_lock", 4, &[("val", u32_id, 0)]);
/// let value_id = btf.structure("counter", 16, &[("lock", lock_id, 0), ("count", u64_id, 8)]);
/// assert_eq!((u32_id, value_id), (1, 4));
/// let blob = btf.finish();
/// # assert!(mapemu::btf::Btf::parse(&blob, 1, mapemu::env::LINUX_6_18_44).is_ok());
/// ```
#[derive(Clone, Debug)]
pub struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    last_id: u32,
}

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_STRUCT: u32 = 4;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;

impl Writer {
    /// No types; the string table begins with the empty string.
    pub fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            last_id: 0,
        }
    }

    /// An unsigned integer of `size` bytes; its id.
    pub fn int(&mut self, name: &str, size: u32) -> u32 {
        let id = self.header(name, KIND_INT << 24, size);
        self.word(size * 8);
        id
    }

    /// A struct of `size` bytes, its members as name, type and offset in bytes, in the order of the offsets; its id.
    ///
    /// # Panics
    ///
    /// If there are more than 65,535 members.
    pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let count = u16::try_from(members.len()).expect("BTF counts members with 16 bits");
        let id = self.header(name, KIND_STRUCT << 24 | u32::from(count), size);
        for (name, type_id, offset) in members {
            let name = self.string(name);
            self.word(name);
            self.word(*type_id);
            self.word(offset * 8);
        }
        id
    }

    /// A pointer to a type with a tag, such as `kptr`; its id.
    pub fn tagged_pointer(&mut self, tag: &str, type_id: u32) -> u32 {
        let tagged = self.header(tag, KIND_TYPE_TAG << 24, type_id);
        self.header("", KIND_PTR << 24, tagged)
    }

    /// Puts a tag on a member of a struct, such as `contains:STRUCT:NODE` on a list.
    pub fn member_tag(&mut self, tag: &str, struct_id: u32, member: u32) {
        self.header(tag, KIND_DECL_TAG << 24, struct_id);
        self.word(member);
    }

    /// The blob, for [`bpf_btf_load`](crate::calls::bpf_btf_load).
    ///
    /// # Panics
    ///
    /// If it is larger than 4 GiB.
    pub fn finish(self) -> Vec<u8> {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a blob is small");
        let (types, strings) = (len(&self.types), len(&self.strings));
        let mut blob = Vec::new();
        blob.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
        blob.extend_from_slice(&[1, 0]);
        for word in [24, 0, types, types, strings] {
            blob.extend_from_slice(&u32::to_ne_bytes(word));
        }
        blob.extend_from_slice(&self.types);
        blob.extend_from_slice(&self.strings);
        blob
    }

    fn header(&mut self, name: &str, info: u32, size: u32) -> u32 {
        let name = if name.is_empty() {
            0
        } else {
            self.string(name)
        };
        for word in [name, info, size] {
            self.word(word);
        }
        self.last_id += 1;
        self.last_id
    }

    fn word(&mut self, word: u32) {
        self.types.extend_from_slice(&word.to_ne_bytes());
    }

    fn string(&mut self, text: &str) -> u32 {
        let at = u32::try_from(self.strings.len()).expect("a blob is small");
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}
