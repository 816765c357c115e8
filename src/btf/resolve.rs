//! Judges what types refer to: the types are there, have sizes where that is needed, and lead to an end.
//!
//! Types are resolved one after the other, and what they refer to before themselves, on a stack of limited depth. While a
//! chain of pointers is followed, structs are an end, as a pointer has its size whatever it points to; while the inside
//! of a struct or array is, pointers are.
//!
//! Kernel: `kernel/bpf/btf.c:btf_check_all_types`, `btf_resolve`, `btf_check_type_tags`.

use super::meta::has_identifier;
use super::raw::{Kind, Member, Type};
use super::{Btf, Resolved};
use crate::abi::{Errno, Result};

/// Types that may be under way at once.
pub(super) const MAX_DEPTH: usize = 32;

/// At what a chain of references ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Undecided,
    Pointer,
    Inside,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    UnderWay,
    Done,
}

struct Frame {
    id: u32,
    next_member: usize,
}

struct Resolver<'b> {
    btf: &'b Btf,
    resolved: Vec<Resolved>,
    visits: Vec<Visit>,
    stack: Vec<Frame>,
    mode: Mode,
}

/// What one step on the top of the stack came to.
enum Step {
    /// That type has to be resolved before.
    Before(u32),
    /// This one is done.
    Done(Resolved),
}

/// Resolves all types.
///
/// # Errors
///
/// `EINVAL`; `E2BIG` if types nest too deep; `EEXIST` if a type contains itself.
pub(super) fn check_all(btf: &Btf) -> Result<Vec<Resolved>> {
    let n = btf.types.len();
    let mut resolver = Resolver {
        btf,
        resolved: vec![Resolved::default(); n],
        visits: vec![Visit::New; n],
        stack: Vec::new(),
        mode: Mode::Undecided,
    };
    for id in 1..btf.n_types() {
        let t = btf.type_of(id);
        resolver.resolve_whole(id)?;
        if t.kind() == Kind::FUNC_PROTO {
            resolver.check_func_proto(t)?;
        }
    }
    Ok(resolver.resolved)
}

/// The type that says the size of `id`, and the size.
pub(super) fn sized(btf: &Btf, resolved: &[Resolved], id: u32) -> Option<(u32, u32)> {
    let size_of = |id: u32| {
        let t = btf.type_by_id(id)?;
        if t.kind().has_size() {
            Some(t.size_or_type)
        } else if t.kind() == Kind::ARRAY {
            Some(resolved[id as usize].size)
        } else if t.kind() == Kind::PTR {
            Some(8)
        } else {
            None
        }
    };
    let kind = btf.type_by_id(id)?.kind();
    let id = if kind.is_modifier() || kind == Kind::VAR {
        resolved[id as usize].type_id
    } else {
        id
    };
    size_of(id).map(|size| (id, size))
}

/// Tags on a type come before its qualifiers.
///
/// # Errors
///
/// `EINVAL` for a qualifier of a tag.
pub(super) fn check_type_tags(btf: &Btf) -> Result<()> {
    let is_broken = (1..btf.n_types()).any(|id| {
        let t = btf.type_of(id);
        t.kind().is_modifier()
            && t.kind() != Kind::TYPE_TAG
            && btf.type_of(t.size_or_type).kind() == Kind::TYPE_TAG
    });
    if is_broken {
        Err(Errno::EINVAL)
    } else {
        Ok(())
    }
}

impl Resolver<'_> {
    /// Resolves a type and all that it needs, unless that happened already.
    fn resolve_whole(&mut self, id: u32) -> Result<()> {
        if !self.btf.type_of(id).kind().needs_resolve() || self.is_done(id) {
            return Ok(());
        }
        self.mode = Mode::Undecided;
        self.push(id)?;
        while let Some(top) = self.stack.last() {
            let (id, next_member) = (top.id, top.next_member);
            match self.step(id, next_member)? {
                Step::Before(other) => self.push(other)?,
                Step::Done(resolved) => {
                    self.stack.pop();
                    self.resolved[id as usize] = resolved;
                    self.visits[id as usize] = Visit::Done;
                }
            }
        }
        self.check_resolved(id)
    }

    fn push(&mut self, id: u32) -> Result<()> {
        if self.stack.len() == MAX_DEPTH {
            return Err(Errno::E2BIG);
        }
        if self.visits[id as usize] != Visit::New {
            return Err(Errno::EEXIST);
        }
        self.visits[id as usize] = Visit::UnderWay;
        self.stack.push(Frame { id, next_member: 0 });
        if self.mode == Mode::Undecided {
            let kind = self.btf.type_of(id).kind();
            if kind == Kind::PTR {
                self.mode = Mode::Pointer;
            } else if kind.is_struct_or_union() || kind == Kind::ARRAY {
                self.mode = Mode::Inside;
            }
        }
        Ok(())
    }

    fn is_done(&self, id: u32) -> bool {
        self.visits[id as usize] == Visit::Done
    }

    /// The chain goes on at that type.
    fn must_wait_for(&self, id: u32) -> bool {
        let kind = self.btf.type_of(id).kind();
        let is_end = match self.mode {
            Mode::Undecided => !kind.needs_resolve(),
            Mode::Pointer => !kind.is_modifier() && kind != Kind::PTR,
            Mode::Inside => {
                !kind.is_modifier() && kind != Kind::ARRAY && !kind.is_struct_or_union()
            }
        };
        !is_end && !self.is_done(id)
    }

    fn sized(&self, id: u32) -> Option<(u32, u32)> {
        sized(self.btf, &self.resolved, id)
    }

    fn step(&mut self, id: u32, next_member: usize) -> Result<Step> {
        let t = self.btf.type_of(id);
        match t.kind() {
            Kind::STRUCT | Kind::UNION => self.step_struct(t, next_member),
            Kind::ARRAY => self.step_array(t),
            Kind::FUNC => self.step_func(t),
            Kind::DECL_TAG => self.step_decl_tag(t),
            Kind::DATASEC => self.step_datasec(t, next_member),
            _ => self.step_reference(t),
        }
    }

    /// Modifiers, pointers and variables.
    fn step_reference(&self, t: Type) -> Result<Step> {
        let next = t.size_or_type;
        let next_kind = self.kind_if_target(next)?;
        if self.must_wait_for(next) {
            return Ok(Step::Before(next));
        }
        if !t.kind().is_modifier() && next_kind.is_modifier() {
            // The modifier may have been resolved as part of a struct, and so have ended at a pointer.
            let behind = self.resolved[next as usize].type_id;
            if self.btf.type_of(behind).kind() == Kind::PTR && self.must_wait_for(behind) {
                return Ok(Step::Before(behind));
            }
        }
        if let Some((type_id, _)) = self.sized(next) {
            return Ok(Step::Done(Resolved { type_id, size: 0 }));
        }
        let end = if self.is_done(next) {
            self.resolved[next as usize].type_id
        } else {
            next
        };
        let may_lack_size = t.kind() != Kind::VAR
            && matches!(
                self.btf.type_of(end).kind(),
                Kind::VOID | Kind::FWD | Kind::FUNC_PROTO
            );
        if !may_lack_size {
            return Err(Errno::EINVAL);
        }
        Ok(Step::Done(Resolved {
            type_id: end,
            size: 0,
        }))
    }

    /// The kind of a type that others may refer to.
    fn kind_if_target(&self, id: u32) -> Result<Kind> {
        let kind = self.btf.type_by_id(id).ok_or(Errno::EINVAL)?.kind();
        if kind.is_source_only() {
            return Err(Errno::EINVAL);
        }
        Ok(kind)
    }

    /// The same, of a type that has a size itself or by what it refers to.
    fn check_part(&self, id: u32) -> Result<()> {
        if self.kind_if_target(id)?.is_sizeless() {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn step_array(&self, t: Type) -> Result<Step> {
        let index_id = self.btf.array_index_type(t);
        self.check_part(index_id)?;
        if self.must_wait_for(index_id) {
            return Ok(Step::Before(index_id));
        }
        let (index_id, _) = self.sized(index_id).ok_or(Errno::EINVAL)?;
        let is_regular_int = |t: Type| t.kind() == Kind::INT && self.btf.int_data(t).is_regular();
        if !is_regular_int(self.btf.type_of(index_id)) {
            return Err(Errno::EINVAL);
        }
        let (elem_id, n) = self.btf.array(t);
        self.check_part(elem_id)?;
        if self.must_wait_for(elem_id) {
            return Ok(Step::Before(elem_id));
        }
        let (type_id, elem_size) = self.sized(elem_id).ok_or(Errno::EINVAL)?;
        let elem = self.btf.type_of(type_id);
        if elem.kind() == Kind::INT && !is_regular_int(elem) {
            return Err(Errno::EINVAL);
        }
        let size = elem_size.checked_mul(n).ok_or(Errno::EINVAL)?;
        Ok(Step::Done(Resolved { type_id, size }))
    }

    fn step_struct(&mut self, t: Type, next_member: usize) -> Result<Step> {
        // The member that was waited for comes again, and is done now.
        for index in next_member..t.vlen() {
            let member = self.btf.member(t, index);
            self.check_part(member.type_id)?;
            if self.must_wait_for(member.type_id) {
                self.set_next_member(index);
                return Ok(Step::Before(member.type_id));
            }
            self.check_member(t, member)?;
        }
        Ok(Step::Done(Resolved::default()))
    }

    fn set_next_member(&mut self, index: usize) {
        let top = self.stack.last_mut().expect("the type under way");
        top.next_member = index;
    }

    fn step_func(&self, t: Type) -> Result<Step> {
        let id = t.size_or_type;
        let proto = self.btf.type_by_id(id).ok_or(Errno::EINVAL)?;
        if proto.kind() != Kind::FUNC_PROTO {
            return Err(Errno::EINVAL);
        }
        // Parameters have names, but for the dots at the end.
        let nameless = (0..proto.vlen())
            .map(|index| self.btf.param(proto, index))
            .any(|(name_off, type_id)| name_off == 0 && type_id != 0);
        if nameless {
            return Err(Errno::EINVAL);
        }
        Ok(Step::Done(Resolved {
            type_id: id,
            size: 0,
        }))
    }

    fn step_decl_tag(&self, t: Type) -> Result<Step> {
        let id = t.size_or_type;
        let target = self.btf.type_by_id(id).ok_or(Errno::EINVAL)?;
        let kind = target.kind();
        let may_be_tagged =
            kind.is_struct_or_union() || matches!(kind, Kind::FUNC | Kind::VAR | Kind::TYPEDEF);
        if !may_be_tagged {
            return Err(Errno::EINVAL);
        }
        if self.must_wait_for(id) {
            return Ok(Step::Before(id));
        }
        let part = super::raw::word(&self.btf.data, t.extra);
        if part != u32::MAX {
            let n_parts = match kind {
                Kind::VAR | Kind::TYPEDEF => 0,
                Kind::FUNC => self
                    .btf
                    .type_by_id(target.size_or_type)
                    .map_or(0, Type::vlen),
                _ => target.vlen(),
            };
            if part as usize >= n_parts {
                return Err(Errno::EINVAL);
            }
        }
        Ok(Step::Done(Resolved {
            type_id: id,
            size: 0,
        }))
    }

    fn step_datasec(&mut self, t: Type, next_member: usize) -> Result<Step> {
        self.mode = Mode::Undecided;
        for index in next_member..t.vlen() {
            let info = self.btf.sec_info(t, index);
            let var = self.btf.type_by_id(info.type_id).ok_or(Errno::EINVAL)?;
            if var.kind() != Kind::VAR {
                return Err(Errno::EINVAL);
            }
            if self.must_wait_for(info.type_id) {
                // The kernel does not come back to a variable that it had to wait for, so its size is not compared.
                self.set_next_member(index + 1);
                return Ok(Step::Before(info.type_id));
            }
            let (_, size) = self.sized(var.size_or_type).ok_or(Errno::EINVAL)?;
            if info.size < size {
                return Err(Errno::EINVAL);
            }
        }
        Ok(Step::Done(Resolved::default()))
    }

    /// What the end of a resolved chain has to be.
    fn check_resolved(&self, id: u32) -> Result<()> {
        let kind = self.btf.type_of(id).kind();
        let end = self.resolved[id as usize].type_id;
        let holds = if kind.is_modifier() || matches!(kind, Kind::PTR | Kind::VAR) {
            let end = self.btf.type_of(end).kind();
            !end.is_modifier() && !matches!(end, Kind::VAR | Kind::DATASEC)
        } else {
            true
        };
        if holds { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Judges the types of a function's result and parameters.
    fn check_func_proto(&mut self, t: Type) -> Result<()> {
        if t.size_or_type != 0 {
            self.check_passed(t.size_or_type)?;
        }
        for index in 0..t.vlen() {
            let (name_off, type_id) = self.btf.param(t, index);
            if type_id == 0 && index + 1 == t.vlen() {
                // The dots at the end, which have no name.
                if name_off != 0 {
                    return Err(Errno::EINVAL);
                }
                continue;
            }
            self.btf.type_by_id(type_id).ok_or(Errno::EINVAL)?;
            if name_off != 0 {
                let len = self.btf.strings.1 - self.btf.strings.0;
                if name_off as usize >= len || !has_identifier(self.btf, name_off) {
                    return Err(Errno::EINVAL);
                }
            }
            self.check_passed(type_id)?;
        }
        Ok(())
    }

    /// Judges a type that is given to or by a function.
    fn check_passed(&mut self, id: u32) -> Result<()> {
        self.kind_if_target(id)?;
        self.resolve_whole(id)?;
        self.sized(id).map(|_| ()).ok_or(Errno::EINVAL)
    }

    /// Judges where a member lies in its struct.
    fn check_member(&self, of: Type, member: Member) -> Result<()> {
        let t = self.btf.type_of(member.type_id);
        let type_id = if t.kind().is_modifier() {
            self.resolved[member.type_id as usize].type_id
        } else {
            member.type_id
        };
        let t = self.btf.type_of(type_id);
        let offset = u64::from(member.bit_offset(of));
        let bits = u64::from(member.bitfield_size(of));
        let size = u64::from(of.size_or_type);
        let holds = match t.kind() {
            Kind::INT => self.int_fits(of, t, offset, bits),
            Kind::ENUM | Kind::ENUM64 if of.kflag() => {
                let bits = if bits == 0 && offset.is_multiple_of(8) {
                    32
                } else {
                    bits
                };
                (1..=32).contains(&bits) && (offset + bits).div_ceil(8) <= size
            }
            Kind::FLOAT => {
                let align_bits = u64::from(t.size_or_type.min(8)) * 8;
                bits == 0
                    && offset.is_multiple_of(align_bits)
                    && offset / 8 + u64::from(t.size_or_type) <= size
            }
            Kind::PTR | Kind::ARRAY | Kind::STRUCT | Kind::UNION | Kind::ENUM | Kind::ENUM64 => {
                let (_, member_size) = self.sized(type_id).ok_or(Errno::EINVAL)?;
                bits == 0 && offset.is_multiple_of(8) && offset / 8 + u64::from(member_size) <= size
            }
            _ => false,
        };
        if holds { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn int_fits(&self, of: Type, t: Type, offset: u64, bits: u64) -> bool {
        let data = self.btf.int_data(t);
        let int_bits = u64::from(data.bits());
        let (offset, bits) = if of.kflag() {
            let is_whole = bits == 0;
            if !data.is_regular() || bits > int_bits || (is_whole && !offset.is_multiple_of(8)) {
                return false;
            }
            (offset, if is_whole { int_bits } else { bits })
        } else {
            let offset = offset + u64::from(data.offset());
            if offset > u64::from(u32::MAX) {
                return false;
            }
            (offset, int_bits)
        };
        // Bits are copied with those before them in the first byte.
        let copied = bits + offset % 8;
        copied <= 128 && offset / 8 + copied.div_ceil(8) <= u64::from(of.size_or_type)
    }
}
