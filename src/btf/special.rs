//! Finds special fields in structs and sections: locks, timers, kptrs, and what else the kernel keeps in values.
//!
//! Kernel: `kernel/bpf/btf.c:btf_parse_fields`, `btf_find_field`, `btf_parse_struct_metas`.

use std::collections::{HashMap, HashSet};

use bitflags::bitflags;

use super::fields::{Field, FieldKind, Fields};
use super::raw::Kind;
use super::resolve::MAX_DEPTH;
use super::{Btf, kernel_types};
use crate::abi::{Errno, Result};
use crate::env::Release;

/// Fields that one value can have.
const MAX_FIELDS: usize = 11;
const PAGE_SIZE: u32 = 4096;
/// The part of a tag that stands for the declaration as a whole.
const WHOLE: u32 = u32::MAX;

bitflags! {
    /// Kinds of special fields, one bit each.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Mask: u32 {
        const SPIN_LOCK = 1;
        const RES_SPIN_LOCK = 1 << 1;
        const TIMER = 1 << 2;
        const WORKQUEUE = 1 << 3;
        const TASK_WORK = 1 << 4;
        const REFCOUNT = 1 << 5;
        const LIST_HEAD = 1 << 6;
        const LIST_NODE = 1 << 7;
        const RB_ROOT = 1 << 8;
        const RB_NODE = 1 << 9;
        const KPTR_UNTRUSTED = 1 << 10;
        const KPTR = 1 << 11;
        const KPTR_PERCPU = 1 << 12;
        const UPTR = 1 << 13;

        const KPTRS = Self::KPTR_UNTRUSTED.bits() | Self::KPTR.bits() | Self::KPTR_PERCPU.bits();
        const POINTERS = Self::KPTRS.bits() | Self::UPTR.bits();
        const ROOTS = Self::LIST_HEAD.bits() | Self::RB_ROOT.bits();
        const NODES = Self::LIST_NODE.bits() | Self::RB_NODE.bits();
        /// At most one of them in a struct.
        const UNIQUE = Self::SPIN_LOCK.bits() | Self::RES_SPIN_LOCK.bits() | Self::TIMER.bits()
            | Self::WORKQUEUE.bits() | Self::TASK_WORK.bits();
        /// What values of maps can have.
        const OF_MAPS = !Self::NODES.bits() & ((1 << 14) - 1);
        /// What objects that programs allocate can have.
        const OF_OBJECTS = Self::SPIN_LOCK.bits() | Self::RES_SPIN_LOCK.bits() | Self::ROOTS.bits()
            | Self::NODES.bits() | Self::REFCOUNT.bits() | Self::KPTRS.bits();
    }
}

/// The structs that are special by their names: kind, name, size, alignment.
const STRUCTS: [(Mask, &[u8], u32, u32); 10] = [
    (Mask::SPIN_LOCK, b"bpf_spin_lock", 4, 4),
    (Mask::RES_SPIN_LOCK, b"bpf_res_spin_lock", 4, 4),
    (Mask::TIMER, b"bpf_timer", 16, 8),
    (Mask::WORKQUEUE, b"bpf_wq", 16, 8),
    (Mask::TASK_WORK, b"bpf_task_work", 8, 8),
    (Mask::LIST_HEAD, b"bpf_list_head", 16, 8),
    (Mask::LIST_NODE, b"bpf_list_node", 24, 8),
    (Mask::RB_ROOT, b"bpf_rb_root", 16, 8),
    (Mask::RB_NODE, b"bpf_rb_node", 32, 8),
    (Mask::REFCOUNT, b"bpf_refcount", 4, 4),
];

/// The tags of pointers that are special.
fn tags(release: &Release) -> impl Iterator<Item = (Mask, &'static [u8])> {
    let tags = &release.kptr_tags;
    [
        (Mask::KPTR_UNTRUSTED, tags.untrusted),
        (Mask::KPTR, tags.referenced),
        (Mask::KPTR_PERCPU, tags.percpu),
        (Mask::UPTR, tags.user),
    ]
    .into_iter()
    .filter(|(_, tag)| !tag.is_empty())
    .map(|(kind, tag)| (kind, tag.as_bytes()))
}

/// The struct is a special field on that release.
fn is_special(name: &[u8], release: &Release) -> bool {
    let mut known = release.special_structs.iter();
    known.any(|known| known.as_bytes() == name)
}

impl Mask {
    /// The kinds that the release knows.
    fn known(release: &Release) -> Self {
        STRUCTS
            .iter()
            .filter(|(_, name, ..)| is_special(name, release))
            .map(|(kind, ..)| *kind)
            .chain(tags(release).map(|(kind, _)| kind))
            .fold(Self::empty(), |all, kind| all | kind)
    }
}

/// A struct with a member of one of these must have fields, or the blob is refused.
const CLAIMS: [&[u8]; 6] = [
    b"bpf_spin_lock",
    b"bpf_list_head",
    b"bpf_list_node",
    b"bpf_rb_root",
    b"bpf_rb_node",
    b"bpf_refcount",
];

/// A field that was found.
#[derive(Clone, Copy, Debug)]
struct Found {
    kind: Mask,
    offset: u32,
    size: u32,
    /// The struct that a pointer points to, or that a list or tree is of.
    target: u32,
    /// Of a list or tree: the tag that says what it is of.
    tag: u32,
    /// Of a list or tree: where in the target the node is.
    node: u32,
}

/// The fields of one struct or section, in order.
#[derive(Debug)]
pub(super) struct Record {
    mask: Mask,
    fields: Vec<Found>,
}

impl Record {
    pub(super) fn to_fields(&self, btf: &Btf) -> Fields {
        let field = |found: &Found| {
            let name = btf.name_of(found.target);
            let (btf_id, target) = match kernel_types::number(name) {
                _ if found.target == 0 => (0, 0),
                Some(number) => (0, number),
                None => (btf.id, found.target),
            };
            let kind = match found.kind {
                Mask::SPIN_LOCK => FieldKind::SpinLock,
                Mask::RES_SPIN_LOCK => FieldKind::ResSpinLock,
                Mask::TIMER => FieldKind::Timer,
                Mask::WORKQUEUE => FieldKind::Workqueue,
                Mask::TASK_WORK => FieldKind::TaskWork,
                Mask::REFCOUNT => FieldKind::Refcount,
                Mask::LIST_HEAD => FieldKind::ListHead,
                Mask::LIST_NODE => FieldKind::ListNode,
                Mask::RB_ROOT => FieldKind::RbRoot,
                Mask::RB_NODE => FieldKind::RbNode,
                Mask::UPTR => FieldKind::Uptr,
                Mask::KPTR_UNTRUSTED => FieldKind::KptrUntrusted,
                Mask::KPTR_PERCPU => FieldKind::KptrPercpu,
                _ => FieldKind::Kptr,
            };
            Field {
                kind,
                offset: found.offset,
                size: found.size,
                btf_id,
                target,
                node: found.node,
            }
        };
        Fields(self.fields.iter().map(field).collect())
    }
}

/// Judges all structs with a direct member that is special, and keeps what was found in them.
///
/// # Errors
///
/// See [`Btf::parse`].
pub(super) fn check_structs(btf: &Btf) -> Result<HashMap<u32, Record>> {
    let mut finder = Finder::new(btf, Mask::OF_OBJECTS);
    let mut claims: HashSet<u32> = CLAIMS
        .iter()
        .filter(|name| is_special(name, btf.release))
        .filter_map(|&name| btf.structs.get(name).copied())
        .collect();
    claims.extend((1..btf.n_types()).filter(|&id| {
        finder
            .pointer(id, 0, Mask::KPTRS)
            .is_ok_and(|found| found.is_some())
    }));
    let mut metas = HashMap::new();
    if claims.is_empty() {
        return Ok(metas);
    }
    for id in 1..btf.n_types() {
        let t = btf.type_of(id);
        let is_claimed = t.kind() == Kind::STRUCT
            && (0..t.vlen()).any(|index| claims.contains(&btf.member(t, index).type_id));
        if is_claimed {
            let record = finder.parse(id, t.size_or_type)?.ok_or(Errno::EFAULT)?;
            metas.insert(id, record);
        }
    }
    let mut ids: Vec<_> = metas.keys().copied().collect();
    ids.sort_unstable();
    for id in ids {
        check_ownership(btf, &metas[&id], &metas)?;
    }
    Ok(metas)
}

/// The fields of a struct or section of `size` bytes, if it has any.
///
/// # Errors
///
/// A broken layout; maps then have no fields.
pub(super) fn parse_fields(btf: &Btf, id: u32, mask: Mask, size: u32) -> Result<Option<Record>> {
    Finder::new(btf, mask).parse(id, size)
}

/// See [`Btf::check_ownership`].
pub(super) fn check_ownership(
    btf: &Btf,
    record: &Record,
    metas: &HashMap<u32, Record>,
) -> Result<()> {
    for field in &record.fields {
        if field.kind == Mask::UPTR {
            let size = btf.type_of(field.target).size_or_type;
            if kernel_types::is_known(btf.name_of(field.target)) || size == 0 {
                return Err(Errno::EINVAL);
            }
            if size > PAGE_SIZE {
                return Err(Errno::E2BIG);
            }
        } else if Mask::ROOTS.contains(field.kind) {
            let node = metas.get(&field.target).ok_or(Errno::EFAULT)?;
            // A type that owns and is owned may only own what owns nothing.
            if record.mask.intersects(Mask::NODES) && node.mask.intersects(Mask::ROOTS) {
                return Err(Errno::ELOOP);
            }
        }
    }
    Ok(())
}

/// Where something is declared: a member of a struct, or a variable as a whole.
#[derive(Clone, Copy)]
struct Place {
    declared_in: u32,
    part: u32,
    offset: u32,
    /// Of variables: the size that the section says.
    expected_size: u32,
}

struct Finder<'b> {
    btf: &'b Btf,
    mask: Mask,
    /// Structs, by id and depth, that have no field: a struct can be part of others very often.
    empty: HashSet<(u32, usize)>,
}

impl<'b> Finder<'b> {
    fn new(btf: &'b Btf, mask: Mask) -> Self {
        Self {
            btf,
            mask: mask & Mask::known(btf.release),
            empty: HashSet::new(),
        }
    }

    fn parse(&mut self, id: u32, size: u32) -> Result<Option<Record>> {
        let kind = self.btf.type_of(id).kind();
        let mut fields = match kind {
            Kind::STRUCT => self.in_struct(id, &mut Mask::empty(), 0, MAX_FIELDS)?,
            Kind::DATASEC => self.in_section(id)?,
            _ => return Err(Errno::EINVAL),
        };
        if fields.is_empty() {
            return Ok(None);
        }
        let mut end = 0;
        let mut mask = Mask::empty();
        for found in &mut fields {
            if u64::from(found.offset) + u64::from(found.size) > u64::from(size) {
                return Err(Errno::EFAULT);
            }
            if found.offset < end {
                return Err(Errno::EEXIST);
            }
            end = found.offset + found.size;
            mask |= found.kind;
            if Mask::POINTERS.contains(found.kind) {
                self.check_pointer(found)?;
            } else if Mask::ROOTS.contains(found.kind) {
                found.node = self.check_root(found)?;
            }
        }
        let locks = Mask::SPIN_LOCK | Mask::RES_SPIN_LOCK;
        let lacks_lock = mask.intersects(Mask::ROOTS) && !mask.intersects(locks);
        let lacks_count = mask.contains(Mask::NODES) && !mask.contains(Mask::REFCOUNT);
        if mask.contains(locks) || lacks_lock || lacks_count {
            return Err(Errno::EINVAL);
        }
        fields.sort_by_key(|found| found.offset);
        Ok(Some(Record { mask, fields }))
    }

    fn in_struct(
        &mut self,
        id: u32,
        seen: &mut Mask,
        level: usize,
        room: usize,
    ) -> Result<Vec<Found>> {
        if self.empty.contains(&(id, level)) {
            return Ok(Vec::new());
        }
        let t = self.btf.type_of(id);
        let mut found = Vec::new();
        for index in 0..t.vlen() {
            let member = self.btf.member(t, index);
            let bits = member.bit_offset(t);
            if !bits.is_multiple_of(8) {
                return Err(Errno::EINVAL);
            }
            let place = Place {
                declared_in: id,
                part: u32::try_from(index).expect("16 bits"),
                offset: bits / 8,
                expected_size: 0,
            };
            let left = room - found.len();
            found.extend(self.one(place, member.type_id, seen, level, left)?);
        }
        if found.is_empty() {
            self.empty.insert((id, level));
        }
        Ok(found)
    }

    fn in_section(&mut self, id: u32) -> Result<Vec<Found>> {
        let t = self.btf.type_of(id);
        let mut seen = Mask::empty();
        let mut found = Vec::new();
        for index in 0..t.vlen() {
            let info = self.btf.sec_info(t, index);
            let place = Place {
                declared_in: info.type_id,
                part: WHOLE,
                offset: info.offset,
                expected_size: info.size,
            };
            let type_id = self.btf.type_of(info.type_id).size_or_type;
            let left = MAX_FIELDS - found.len();
            found.extend(self.one(place, type_id, &mut seen, 0, left)?);
        }
        Ok(found)
    }

    /// The fields of one member or variable.
    fn one(
        &mut self,
        place: Place,
        type_id: u32,
        seen: &mut Mask,
        level: usize,
        room: usize,
    ) -> Result<Vec<Found>> {
        let Some((type_id, n)) = self.element(type_id)? else {
            return Ok(Vec::new());
        };
        let has_size =
            |size: u32| place.expected_size == 0 || place.expected_size == size.wrapping_mul(n);
        let is_struct = self.btf.type_of(type_id).kind() == Kind::STRUCT;
        let Some((kind, size, align)) = self.kind_of(type_id, seen)? else {
            let size = self.btf.type_of(type_id).size_or_type;
            if !is_struct || !has_size(size) || !self.btf.release.fields_in_parts {
                return Ok(Vec::new());
            }
            if level + 1 >= MAX_DEPTH {
                return Err(Errno::E2BIG);
            }
            let mut seen_inside = Mask::empty();
            let seen = if self.btf.release.btf_one_field_of_a_kind {
                seen
            } else {
                &mut seen_inside
            };
            let mut inner = self.in_struct(type_id, seen, level + 1, room)?;
            for found in &mut inner {
                found.offset = found.offset.wrapping_add(place.offset);
            }
            return repeat(inner, n, size, room);
        };
        if !has_size(size) || !place.offset.is_multiple_of(align) {
            return Ok(Vec::new());
        }
        let is_right_struct = is_struct && self.btf.type_of(type_id).size_or_type == size;
        let found = if Mask::POINTERS.intersects(kind) {
            self.pointer(type_id, place.offset, self.mask)?
        } else if !is_right_struct {
            None
        } else {
            let (target, tag) = if Mask::ROOTS.contains(kind) {
                self.content(place)?
            } else {
                (0, 0)
            };
            Some(Found {
                kind,
                offset: place.offset,
                size,
                target,
                tag,
                node: 0,
            })
        };
        let Some(found) = found else {
            return Ok(Vec::new());
        };
        if room == 0 {
            return Err(Errno::E2BIG);
        }
        repeat(vec![found], n, size, room)
    }

    /// The type of the elements of an array in arrays, and their number; `None` if there are none.
    fn element(&self, mut type_id: u32) -> Result<Option<(u32, u32)>> {
        if !self.btf.release.fields_in_parts {
            return Ok(Some((type_id, 1)));
        }
        let mut n = 1_u32;
        for _ in 0..MAX_DEPTH {
            let t = self.btf.type_of(type_id);
            if t.kind() != Kind::ARRAY {
                return Ok(Some((type_id, n)).filter(|&(_, n)| n != 0));
            }
            let (elem, n_elems) = self.btf.array(t);
            n = n.wrapping_mul(n_elems);
            type_id = elem;
        }
        Err(Errno::E2BIG)
    }

    /// What a type may be, by its name, with size and alignment; any type but a struct may be a pointer still.
    fn kind_of(&self, type_id: u32, seen: &mut Mask) -> Result<Option<(Mask, u32, u32)>> {
        let name = self.btf.name_of(type_id);
        let by_name = STRUCTS.iter().find(|(kind, own, size, _)| {
            let has_size = self.btf.type_of(type_id).size_or_type == *size;
            self.mask.contains(*kind)
                && *own == name
                && (has_size || self.btf.release.fields_in_parts)
        });
        if let Some(&(kind, _, size, align)) = by_name {
            let one_refcount = kind == Mask::REFCOUNT && self.btf.release.btf_one_field_of_a_kind;
            if Mask::UNIQUE.contains(kind) || one_refcount {
                if seen.contains(kind) {
                    return Err(Errno::E2BIG);
                }
                *seen |= kind;
            }
            return Ok(Some((kind, size, align)));
        }
        let may_point = self.mask.intersects(Mask::POINTERS)
            && self.btf.type_of(type_id).kind() != Kind::STRUCT;
        Ok(may_point.then_some((Mask::POINTERS, 8, 8)))
    }

    /// The pointer field that this type is, if it is one.
    fn pointer(&self, type_id: u32, offset: u32, mask: Mask) -> Result<Option<Found>> {
        let target = |id: u32| self.btf.type_of(id).size_or_type;
        let kind = |id: u32| self.btf.type_of(id).kind();
        let pointer = if kind(type_id) == Kind::VOLATILE {
            target(type_id)
        } else {
            type_id
        };
        if kind(pointer) != Kind::PTR {
            return Ok(None);
        }
        let tag = target(pointer);
        if kind(tag) != Kind::TYPE_TAG || self.btf.type_of(tag).kflag() {
            return Ok(None);
        }
        let mut tagged = target(tag);
        while kind(tagged) == Kind::TYPE_TAG {
            if !self.btf.release.kptr_with_several_tags {
                return Err(Errno::EINVAL);
            }
            tagged = target(tagged);
        }
        let name = self.btf.name_of(tag);
        let field_kind = tags(self.btf.release).find(|(_, tag)| *tag == name);
        let (field_kind, _) = field_kind.ok_or(Errno::EINVAL)?;
        if !mask.contains(field_kind) {
            return Ok(None);
        }
        while kind(tagged).is_modifier() {
            tagged = target(tagged);
        }
        if kind(tagged) != Kind::STRUCT {
            return Err(Errno::EINVAL);
        }
        Ok(Some(Found {
            kind: field_kind,
            offset,
            size: 8,
            target: tagged,
            tag: 0,
            node: 0,
        }))
    }

    /// The struct that a list or tree is of, and the tag `contains:STRUCT:MEMBER` that says so.
    fn content(&self, place: Place) -> Result<(u32, u32)> {
        let tags = self
            .btf
            .tags
            .get(&(place.declared_in, place.part))
            .map_or(&[][..], Vec::as_slice);
        let mut contents = tags
            .iter()
            .filter(|&&tag| self.btf.name_of(tag).starts_with(b"contains:"));
        let (Some(&tag), None) = (contents.next(), contents.next()) else {
            return Err(Errno::EINVAL);
        };
        let (name, member) = self.split_tag(tag).ok_or(Errno::EINVAL)?;
        let target = self.btf.structs.get(name).ok_or(Errno::ENOENT)?;
        if member.is_empty() {
            return Err(Errno::EINVAL);
        }
        Ok((*target, tag))
    }

    fn split_tag(&self, tag: u32) -> Option<(&'b [u8], &'b [u8])> {
        let text = self.btf.name_of(tag).strip_prefix(b"contains:")?;
        let colon = text.iter().position(|&c| c == b':')?;
        Some((&text[..colon], &text[colon + 1..]))
    }

    /// Judges what a pointer points to. Structs that the kernel does not have are allocated by programs.
    fn check_pointer(&self, found: &Found) -> Result<()> {
        let name = self.btf.name_of(found.target);
        if !kernel_types::is_known(name) && !self.btf.release.kptr_everywhere {
            return Err(Errno::ENOENT);
        }
        let may_leak = found.kind == Mask::KPTR
            && kernel_types::is_known(name)
            && !kernel_types::can_be_released(name);
        if may_leak { Err(Errno::ENOENT) } else { Ok(()) }
    }

    /// Judges the member that a list or tree goes through; where it is.
    fn check_root(&self, found: &Found) -> Result<u32> {
        let node_type: &[u8] = if found.kind == Mask::LIST_HEAD {
            b"bpf_list_node"
        } else {
            b"bpf_rb_node"
        };
        let (_, node_name) = self.split_tag(found.tag).expect("split when it was found");
        let t = self.btf.type_of(found.target);
        let mut at = None;
        for index in 0..t.vlen() {
            let member = self.btf.member(t, index);
            if self.btf.name(member.name_off) != node_name {
                continue;
            }
            let node = self.btf.type_of(member.type_id);
            let fits = at.is_none()
                && node.kind() == Kind::STRUCT
                && self.btf.name(node.name_off) == node_type
                && member.bit_offset(node).is_multiple_of(64);
            if !fits {
                return Err(Errno::EINVAL);
            }
            at = Some(member.bit_offset(t) / 8);
        }
        at.ok_or(Errno::ENOENT)
    }
}

/// The fields of `n` elements of `size` bytes, of which those of the first are given.
fn repeat(mut found: Vec<Found>, n: u32, size: u32, room: usize) -> Result<Vec<Found>> {
    if found.is_empty() || n == 1 {
        return Ok(found);
    }
    let repeatable = Mask::POINTERS.union(Mask::ROOTS);
    if found.iter().any(|found| !repeatable.contains(found.kind)) {
        return Err(Errno::EINVAL);
    }
    if found.len() as u64 * u64::from(n) > room as u64 {
        return Err(Errno::E2BIG);
    }
    let first = found.clone();
    for index in 1..n {
        found.extend(first.iter().map(|found| Found {
            offset: found.offset.wrapping_add(index.wrapping_mul(size)),
            ..*found
        }));
    }
    Ok(found)
}
