//! Special fields of values: what the rule books ask about them.

use super::kernel_types;

/// Special fields of a value, in the order of their offsets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields(pub Vec<Field>);

/// One special field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// What it is.
    pub kind: FieldKind,
    /// Where it begins in the value, in bytes.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
    /// The blob of the struct that it points to, or that it is a list or tree of; 0 if that is the kernel's, and for the
    /// rest.
    pub btf_id: u32,
    /// That struct: a type of the blob, or a number that stands for a struct of the kernel; 0 for the rest.
    pub target: u32,
    /// Of a list or tree: where in that struct the node is that goes in, in bytes.
    pub node: u32,
}

/// What a special field is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldKind {
    /// `struct bpf_spin_lock`
    SpinLock,
    /// `struct bpf_res_spin_lock`
    ResSpinLock,
    /// `struct bpf_timer`
    Timer,
    /// `struct bpf_wq`
    Workqueue,
    /// `struct bpf_task_work`
    TaskWork,
    /// `struct bpf_refcount`
    Refcount,
    /// `struct bpf_list_head`
    ListHead,
    /// `struct bpf_list_node`, of objects that programs allocate
    ListNode,
    /// `struct bpf_rb_root`
    RbRoot,
    /// `struct bpf_rb_node`, of objects that programs allocate
    RbNode,
    /// A pointer to an object, with a reference to it (tag `kptr`)
    Kptr,
    /// A pointer to an object of which each CPU has one, with a reference to it (`percpu_kptr`)
    KptrPercpu,
    /// A pointer to an object without a reference (`kptr_untrusted`)
    KptrUntrusted,
    /// A pointer to user memory
    Uptr,
}

impl Field {
    /// The bytes it takes in the value.
    pub const fn bytes(&self) -> std::ops::Range<usize> {
        let start = self.offset as usize;
        start..start + self.size as usize
    }

    /// The struct of the kernel that it points to.
    pub fn kernel_struct(&self) -> Option<&'static str> {
        let is_of_kernel = self.btf_id == 0;
        kernel_types::name(self.target).filter(|_| is_of_kernel)
    }
}

impl Fields {
    /// There are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The offset of the `bpf_spin_lock` that `BPF_F_LOCK` takes: the last one.
    pub fn spin_lock(&self) -> Option<u32> {
        self.0
            .iter()
            .rev()
            .find(|field| field.kind == FieldKind::SpinLock)
            .map(|field| field.offset)
    }

    /// The field of that kind that begins at that byte.
    pub fn at(&self, offset: usize, kind: FieldKind) -> Option<&Field> {
        self.0
            .iter()
            .find(|field| field.kind == kind && field.offset as usize == offset)
    }

    /// The field that has one of `len` bytes from `offset` on.
    #[inline]
    pub fn touched_by(&self, offset: usize, len: usize) -> Option<&Field> {
        self.0.iter().find(|field| {
            let bytes = field.bytes();
            bytes.start < offset + len && offset < bytes.end
        })
    }

    /// Makes all fields 0.
    pub fn clear(&self, value: &mut [u8]) {
        for field in &self.0 {
            value[field.bytes()].fill(0);
        }
    }

    /// Makes of a value's bytes what user space may see: fields are 0, and a reference count is 1.
    ///
    /// Kernel: `include/linux/bpf.h:bpf_obj_init_field`.
    pub fn hide(&self, value: &mut [u8]) {
        for field in &self.0 {
            let bytes = &mut value[field.bytes()];
            bytes.fill(0);
            if field.kind == FieldKind::Refcount {
                bytes.copy_from_slice(&1_u32.to_ne_bytes());
            }
        }
    }
}
