//! Which slot an LRU map gives up: lists of slots, and a reference bit for each.
//!
//! A slot is in exactly one list. Lists have a front and a back; "the end" ([`END`]) lies between them, so a list is a
//! ring. There is one [`Set`] of lists for all CPUs, with a few slots held back for each CPU ([`Local`]), or a whole set
//! for each CPU.
//!
//! Invariant: the links of a slot are only read and written under the lock of the lists that it is in; reference bits are
//! set by anybody at any time.
//!
//! Kernel: `kernel/bpf/bpf_lru_list.c` (v6.18).

use std::io;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Words;

/// No slot: the end of a list.
const END: u32 = u32::MAX;

/// Slots that one look at a list goes through at most, of lists for all CPUs.
const SCAN_SHARED: u32 = 128;
/// The same, of lists of one CPU.
const SCAN_OWN: u32 = 4;
/// Slots that are evicted at once, of lists of one CPU.
const EVICT_OWN: u32 = 4;
/// Slots that a CPU holds back at most.
const MAX_LOCAL: u32 = 128;
/// Slots that are brought near at once, before they are evicted.
const NEAR: usize = 16;

/// The table that the elements of the slots are in.
pub trait Elems {
    /// Takes a slot's element out; false if it is none at the moment.
    fn evict(&mut self, slot: u32) -> bool;

    /// Most of these slots are evicted next: what that reads can be on its way from memory meanwhile.
    fn bring_near(&mut self, _slots: &[u32]) {}
}

impl<F: FnMut(u32) -> bool> Elems for F {
    fn evict(&mut self, slot: u32) -> bool {
        self(slot)
    }
}

/// The list that a slot is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Of no element; the place of a slot that was never used.
    Free,
    Inactive,
    Active,
    /// Of a new element, on the CPU that took it.
    Pending,
    /// Of no element, held back for one CPU.
    LocalFree,
}

/// The lists of one map.
#[derive(Debug)]
pub struct Lru {
    nodes: Nodes,
    lists: Lists,
}

#[derive(Debug)]
enum Lists {
    Shared(Mutex<Shared>),
    /// By CPU; `n_slots` slots for each.
    Own {
        sets: Box<[Mutex<Set>]>,
        n_slots: u32,
    },
}

/// How a CPU gets slots, of lists for all CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refill {
    /// As many at once as the number of slots suggests; else 128.
    pub by_size: bool,
    /// The one that was found first is used first; else the last.
    pub first_found_first: bool,
}

impl Lru {
    /// `n_slots` free slots in lists for all CPUs.
    ///
    /// # Errors
    ///
    /// Those of the system: no memory.
    pub fn shared(n_slots: u32, nr_cpus: u32, refill: Refill) -> io::Result<Self> {
        let local = |cpu| Local {
            free: Vec::new(),
            pending: List::new(Place::Pending),
            steal: cpu,
        };
        let target = if refill.by_size {
            (n_slots / nr_cpus / 2).clamp(1, MAX_LOCAL)
        } else {
            MAX_LOCAL
        };
        Ok(Self {
            nodes: Nodes::new(n_slots)?,
            lists: Lists::Shared(Mutex::new(Shared {
                set: Set::new(0, n_slots, SCAN_SHARED),
                locals: (0..nr_cpus).map(local).collect(),
                target,
                first_found_first: refill.first_found_first,
            })),
        })
    }

    /// `n_slots` free slots for each CPU, which never leave it.
    ///
    /// # Errors
    ///
    /// Those of the system: no memory.
    pub fn own(n_slots: u32, nr_cpus: u32) -> io::Result<Self> {
        let set = |cpu| Mutex::new(Set::new(cpu * n_slots, n_slots, SCAN_OWN));
        Ok(Self {
            nodes: Nodes::new(n_slots * nr_cpus)?,
            lists: Lists::Own {
                sets: (0..nr_cpus).map(set).collect(),
                n_slots,
            },
        })
    }

    /// A program reads the element of that slot, or it was changed: it is not to be evicted next. Writes nothing if that
    /// is known already.
    #[inline]
    pub fn reference(&self, slot: u32) {
        self.nodes.set_bit(slot);
    }

    /// A slot for a new element on that CPU; another element may have to go for it. None if there is none to be had.
    pub fn take(&self, cpu: u32, mut elems: impl Elems) -> Option<u32> {
        let nodes = &self.nodes;
        match &self.lists {
            Lists::Shared(shared) => shared.lock().take(nodes, cpu, &mut elems),
            Lists::Own { sets, .. } => sets[cpu as usize].lock().take(nodes, &mut elems),
        }
    }

    /// A slot has no element any more.
    pub fn give_back(&self, slot: u32) {
        let nodes = &self.nodes;
        match &self.lists {
            Lists::Shared(shared) => shared.lock().give_back(nodes, slot),
            Lists::Own { sets, n_slots } => {
                let set = &sets[(slot / n_slots) as usize];
                set.lock().move_to(nodes, slot, Place::Free);
            }
        }
    }
}

/// What each slot has: its neighbours, its list, who took it, its reference bit.
#[derive(Debug)]
struct Nodes {
    /// Two words for each slot: neighbours towards front and back; list and CPU.
    links: Words,
    /// A bit for each slot.
    bits: Words,
}

impl Nodes {
    fn new(n_slots: u32) -> io::Result<Self> {
        Ok(Self {
            links: Words::new(n_slots as usize * 2)?,
            bits: Words::new((n_slots as usize).div_ceil(64))?,
        })
    }

    #[inline]
    fn bit(&self, slot: u32) -> bool {
        let word = self.bits.word(slot as usize / 64).load(Ordering::Relaxed);
        word >> (slot % 64) & 1 != 0
    }

    #[inline]
    fn set_bit(&self, slot: u32) {
        if !self.bit(slot) {
            let word = self.bits.word(slot as usize / 64);
            word.fetch_or(1 << (slot % 64), Ordering::Relaxed);
        }
    }

    fn clear_bit(&self, slot: u32) {
        if self.bit(slot) {
            let word = self.bits.word(slot as usize / 64);
            word.fetch_and(!(1 << (slot % 64)), Ordering::Relaxed);
        }
    }

    /// Neighbours towards the front and towards the back.
    fn neighbours(&self, slot: u32) -> (u32, u32) {
        halves(self.links.word(slot as usize * 2).load(Ordering::Relaxed))
    }

    fn set_neighbours(&self, slot: u32, ahead: u32, behind: u32) {
        let word = self.links.word(slot as usize * 2);
        word.store(whole(ahead, behind), Ordering::Relaxed);
    }

    fn place(&self, slot: u32) -> Place {
        let word = self.links.word(slot as usize * 2 + 1);
        match halves(word.load(Ordering::Relaxed)).0 {
            0 => Place::Free,
            1 => Place::Inactive,
            2 => Place::Active,
            3 => Place::Pending,
            _ => Place::LocalFree,
        }
    }

    /// The CPU that took the slot.
    fn cpu(&self, slot: u32) -> u32 {
        let word = self.links.word(slot as usize * 2 + 1);
        halves(word.load(Ordering::Relaxed)).1
    }

    fn set_place(&self, slot: u32, place: Place) {
        self.set_place_and_cpu(slot, place, self.cpu(slot));
    }

    fn set_place_and_cpu(&self, slot: u32, place: Place, cpu: u32) {
        let number = match place {
            Place::Free => 0,
            Place::Inactive => 1,
            Place::Active => 2,
            Place::Pending => 3,
            Place::LocalFree => 4,
        };
        let word = self.links.word(slot as usize * 2 + 1);
        word.store(whole(number, cpu), Ordering::Relaxed);
    }
}

/// Two halves of a word.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

fn whole(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// A list: a ring of slots and the end.
#[derive(Debug)]
struct List {
    place: Place,
    front: u32,
    back: u32,
    len: u32,
}

impl List {
    fn new(place: Place) -> Self {
        Self {
            place,
            front: END,
            back: END,
            len: 0,
        }
    }

    /// The neighbour towards the front; of the end, the back slot.
    fn ahead(&self, nodes: &Nodes, slot: u32) -> u32 {
        if slot == END {
            self.back
        } else {
            nodes.neighbours(slot).0
        }
    }

    /// The neighbour towards the back; of the end, the front slot.
    fn behind(&self, nodes: &Nodes, slot: u32) -> u32 {
        if slot == END {
            self.front
        } else {
            nodes.neighbours(slot).1
        }
    }

    fn push_front(&mut self, nodes: &Nodes, slot: u32) {
        nodes.set_neighbours(slot, END, self.front);
        nodes.set_place(slot, self.place);
        if self.front == END {
            self.back = slot;
        } else {
            let behind = nodes.neighbours(self.front).1;
            nodes.set_neighbours(self.front, slot, behind);
        }
        self.front = slot;
        self.len += 1;
    }

    fn remove(&mut self, nodes: &Nodes, slot: u32) {
        let (ahead, behind) = nodes.neighbours(slot);
        if ahead == END {
            self.front = behind;
        } else {
            nodes.set_neighbours(ahead, nodes.neighbours(ahead).0, behind);
        }
        if behind == END {
            self.back = ahead;
        } else {
            nodes.set_neighbours(behind, ahead, nodes.neighbours(behind).1);
        }
        self.len -= 1;
    }
}

/// Free, inactive and active slots, and where the last look through the inactive ones ended.
#[derive(Debug)]
struct Set {
    free: List,
    /// Free slots that were never used, behind those in `free`: this many from `first` on, the last one in front.
    n_unused: u32,
    first: u32,
    inactive: List,
    active: List,
    /// A slot of `inactive`, or the end.
    mark: u32,
    /// Slots that one look at a list goes through at most.
    scan: u32,
}

impl Set {
    fn new(first: u32, n_slots: u32, scan: u32) -> Self {
        Self {
            free: List::new(Place::Free),
            n_unused: n_slots,
            first,
            inactive: List::new(Place::Inactive),
            active: List::new(Place::Active),
            mark: END,
            scan,
        }
    }

    /// Takes a slot out of whichever of these lists it is in; its bit stays.
    fn take_out(&mut self, nodes: &Nodes, slot: u32) {
        if self.mark == slot {
            self.mark = nodes.neighbours(slot).0;
        }
        match nodes.place(slot) {
            Place::Free => self.free.remove(nodes, slot),
            Place::Inactive => self.inactive.remove(nodes, slot),
            Place::Active => self.active.remove(nodes, slot),
            Place::Pending | Place::LocalFree => unreachable!("slot {slot} is in no set"),
        }
    }

    /// Puts a slot of no list at the front of one.
    fn put(&mut self, nodes: &Nodes, slot: u32, place: Place) {
        nodes.clear_bit(slot);
        match place {
            Place::Free => self.free.push_front(nodes, slot),
            Place::Inactive => self.inactive.push_front(nodes, slot),
            Place::Active => self.active.push_front(nodes, slot),
            Place::Pending | Place::LocalFree => unreachable!("a set has no such list"),
        }
    }

    /// Moves a slot of this set to the front of one of its lists.
    fn move_to(&mut self, nodes: &Nodes, slot: u32, place: Place) {
        self.take_out(nodes, slot);
        self.put(nodes, slot, place);
    }

    /// Takes the free slot in front out.
    fn pop_free(&mut self, nodes: &Nodes) -> Option<u32> {
        if self.free.front != END {
            let slot = self.free.front;
            self.free.remove(nodes, slot);
            Some(slot)
        } else {
            self.n_unused = self.n_unused.checked_sub(1)?;
            Some(self.first + self.n_unused)
        }
    }

    fn rotate(&mut self, nodes: &Nodes) {
        if self.inactive.len < self.active.len {
            self.rotate_active(nodes);
        }
        if self.inactive.len > 0 {
            self.rotate_inactive(nodes);
        }
    }

    /// From the back: those that were used stay active, the others do not.
    fn rotate_active(&mut self, nodes: &Nodes) {
        let last = self.active.front;
        let mut slot = self.active.back;
        for _ in 0..self.scan {
            let next = self.active.ahead(nodes, slot);
            let place = if nodes.bit(slot) {
                Place::Active
            } else {
                Place::Inactive
            };
            self.move_to(nodes, slot, place);
            if slot == last {
                break;
            }
            slot = next;
        }
    }

    /// From the mark towards the front and on at the back, once round at most: those that were used become active.
    fn rotate_inactive(&mut self, nodes: &Nodes) {
        let mut last = self.inactive.behind(nodes, self.mark);
        if last == END {
            last = self.inactive.behind(nodes, END);
        }
        let mut next = self.mark;
        let mut count = 0;
        while count < self.scan {
            let slot = next;
            next = self.inactive.ahead(nodes, slot);
            if slot == END {
                continue;
            }
            if nodes.bit(slot) {
                self.move_to(nodes, slot, Place::Active);
            }
            if slot == last {
                break;
            }
            count += 1;
        }
        self.mark = next;
    }

    /// Evicts up to `want` slots; gives each to `freed`, which is in no list then.
    fn shrink(&mut self, nodes: &Nodes, want: u32, elems: &mut dyn Elems, freed: &mut Vec<u32>) {
        let before = freed.len();
        let mut slot = self.inactive.back;
        let mut got = 0;
        for looked_at in 0..self.scan as usize {
            if slot == END || got == want {
                break;
            }
            if looked_at % NEAR == 0 {
                self.bring_near(nodes, slot, elems);
            }
            let next = self.inactive.ahead(nodes, slot);
            if nodes.bit(slot) {
                self.move_to(nodes, slot, Place::Active);
            } else if elems.evict(slot) {
                self.take_out(nodes, slot);
                freed.push(slot);
                got += 1;
            }
            slot = next;
        }
        if freed.len() == before {
            self.shrink_by_force(nodes, elems, freed);
        }
    }

    /// From a slot of the inactive ones towards the front.
    fn bring_near(&self, nodes: &Nodes, from: u32, elems: &mut dyn Elems) {
        let mut slots = [0; NEAR];
        let mut len = 0;
        let mut slot = from;
        while slot != END && len < NEAR {
            slots[len] = slot;
            len += 1;
            slot = self.inactive.ahead(nodes, slot);
        }
        elems.bring_near(&slots[..len]);
    }

    /// Evicts one slot, even one that was used.
    fn shrink_by_force(&mut self, nodes: &Nodes, elems: &mut dyn Elems, freed: &mut Vec<u32>) {
        let mut slot = if self.inactive.len > 0 {
            self.inactive.back
        } else {
            self.active.back
        };
        while slot != END {
            if elems.evict(slot) {
                self.take_out(nodes, slot);
                freed.push(slot);
                return;
            }
            slot = nodes.neighbours(slot).0;
        }
    }

    /// A slot for a new element, where each CPU has a set of its own.
    fn take(&mut self, nodes: &Nodes, elems: &mut dyn Elems) -> Option<u32> {
        self.rotate(nodes);
        if self.free.len == 0 && self.n_unused == 0 {
            let mut freed = Vec::with_capacity(EVICT_OWN as usize);
            self.shrink(nodes, EVICT_OWN, elems, &mut freed);
            for slot in freed {
                self.free.push_front(nodes, slot);
            }
        }
        let slot = self.pop_free(nodes)?;
        self.put(nodes, slot, Place::Inactive);
        Some(slot)
    }
}

/// The slots held back for one CPU.
#[derive(Debug)]
struct Local {
    /// A stack.
    free: Vec<u32>,
    /// Slots of new elements.
    pending: List,
    /// The CPU that is robbed next.
    steal: u32,
}

/// One set for all CPUs, and what each holds back.
#[derive(Debug)]
struct Shared {
    set: Set,
    locals: Box<[Local]>,
    /// Slots that a CPU gets at once.
    target: u32,
    /// Of those, the one that was found first is used first.
    first_found_first: bool,
}

impl Shared {
    fn take(&mut self, nodes: &Nodes, cpu: u32, elems: &mut dyn Elems) -> Option<u32> {
        if self.locals[cpu as usize].free.is_empty() {
            self.refill(nodes, cpu, elems);
        }
        let slot = match self.locals[cpu as usize].free.pop() {
            Some(slot) => slot,
            None => self.steal(nodes, cpu, elems)?,
        };
        nodes.clear_bit(slot);
        nodes.set_place_and_cpu(slot, Place::Pending, cpu);
        self.locals[cpu as usize].pending.push_front(nodes, slot);
        Some(slot)
    }

    fn refill(&mut self, nodes: &Nodes, cpu: u32, elems: &mut dyn Elems) {
        let Self {
            set,
            locals,
            target,
            first_found_first,
        } = self;
        let local = &mut locals[cpu as usize];
        while local.pending.back != END {
            let slot = local.pending.back;
            local.pending.remove(nodes, slot);
            let place = if nodes.bit(slot) {
                Place::Active
            } else {
                Place::Inactive
            };
            set.put(nodes, slot, place);
        }
        set.rotate(nodes);
        let mut got = 0;
        while got < *target
            && let Some(slot) = set.pop_free(nodes)
        {
            local.free.push(slot);
            got += 1;
        }
        if got < *target {
            set.shrink(nodes, *target - got, elems, &mut local.free);
        }
        for &slot in &local.free {
            nodes.set_place(slot, Place::LocalFree);
        }
        if *first_found_first {
            local.free.reverse();
        }
    }

    /// A slot that is held back for some CPU, of the next one that has any.
    fn steal(&mut self, nodes: &Nodes, cpu: u32, elems: &mut dyn Elems) -> Option<u32> {
        let n_cpus = self.locals.len();
        let first = self.locals[cpu as usize].steal as usize;
        let mut found = None;
        let mut robbed = first;
        for _ in 0..n_cpus {
            let local = &mut self.locals[robbed];
            found = local.free.pop().or_else(|| local.rob(nodes, elems));
            robbed = (robbed + 1) % n_cpus;
            if found.is_some() {
                break;
            }
        }
        self.locals[cpu as usize].steal = u32::try_from(robbed).expect("below the number of CPUs");
        found
    }

    fn give_back(&mut self, nodes: &Nodes, slot: u32) {
        match nodes.place(slot) {
            Place::Pending => {
                nodes.clear_bit(slot);
                let local = &mut self.locals[nodes.cpu(slot) as usize];
                local.pending.remove(nodes, slot);
                nodes.set_place(slot, Place::LocalFree);
                local.free.push(slot);
            }
            Place::Free | Place::Inactive | Place::Active => {
                self.set.move_to(nodes, slot, Place::Free);
            }
            Place::LocalFree => unreachable!("slot {slot} was given back before"),
        }
    }
}

impl Local {
    /// Evicts a new element: the oldest that was not used, else the oldest.
    fn rob(&mut self, nodes: &Nodes, elems: &mut dyn Elems) -> Option<u32> {
        for even_used in [false, true] {
            let mut slot = self.pending.back;
            while slot != END {
                if (even_used || !nodes.bit(slot)) && elems.evict(slot) {
                    self.pending.remove(nodes, slot);
                    return Some(slot);
                }
                slot = self.pending.ahead(nodes, slot);
            }
        }
        None
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::{Lru, Refill};
    use std::collections::HashMap;

    const BY_SIZE: Refill = Refill {
        by_size: true,
        first_found_first: true,
    };

    /// Keys of elements by slot, as the table of a map would have them.
    struct Model {
        lru: Lru,
        keys: HashMap<u32, u32>,
    }

    impl Model {
        fn new(lru: std::io::Result<Lru>) -> Self {
            Self {
                lru: lru.expect("memory"),
                keys: HashMap::new(),
            }
        }

        fn slot(&self, key: u32) -> Option<u32> {
            let mut slots = self.keys.iter();
            slots.find(|(_, k)| **k == key).map(|(slot, _)| *slot)
        }

        /// As an update of an LRU hash does.
        fn update(&mut self, cpu: u32, key: u32) {
            let keys = &mut self.keys;
            let slot = self.lru.take(cpu, |slot| keys.remove(&slot).is_some());
            let slot = slot.expect("a slot");
            let old = self.slot(key);
            self.keys.insert(slot, key);
            if let Some(old) = old {
                self.lru.reference(slot);
                self.keys.remove(&old);
                self.lru.give_back(old);
            }
        }

        fn lookup(&self, key: u32) {
            self.lru
                .reference(self.slot(key).expect("the key is there"));
        }

        fn keys(&self) -> Vec<u32> {
            let mut keys: Vec<u32> = self.keys.values().copied().collect();
            keys.sort_unstable();
            keys
        }
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut map = Model::new(Lru::shared(4, 2, BY_SIZE));
        for key in 1..=4 {
            map.update(0, key);
        }
        assert_eq!(map.keys(), [1, 2, 3, 4]);
        map.update(0, 5);
        assert_eq!(map.keys(), [2, 3, 4, 5]);
        map.update(0, 6);
        assert_eq!(map.keys(), [3, 4, 5, 6]);
    }

    #[test]
    fn a_used_one_is_spared() {
        let mut map = Model::new(Lru::shared(4, 2, BY_SIZE));
        for key in 1..=4 {
            map.update(0, key);
        }
        map.lookup(1);
        map.update(0, 5);
        assert_eq!(map.keys(), [1, 3, 4, 5]);
        map.update(0, 6);
        assert_eq!(map.keys(), [1, 4, 5, 6]);
        map.lookup(5);
        map.update(0, 7);
        assert_eq!(map.keys(), [1, 5, 6, 7]);
        map.update(0, 8);
        assert_eq!(map.keys(), [1, 5, 7, 8]);
        map.update(0, 8);
        assert_eq!(
            map.keys(),
            [1, 5, 8],
            "a slot is taken before the old one is given back"
        );
        map.update(0, 9);
        assert_eq!(map.keys(), [1, 5, 8, 9], "the slot that was given back");
    }

    #[test]
    fn a_cpu_of_its_own_evicts_four_at_once() {
        let mut map = Model::new(Lru::own(4, 2));
        for key in 0..4 {
            map.update(0, key);
        }
        assert_eq!(map.keys(), [0, 1, 2, 3]);
        map.update(0, 4);
        assert_eq!(map.keys(), [4]);
        for key in 5..8 {
            map.update(0, key);
        }
        assert_eq!(map.keys(), [4, 5, 6, 7]);
        for key in 10..14 {
            map.update(1, key);
        }
        assert_eq!(map.keys(), [4, 5, 6, 7, 10, 11, 12, 13], "no other CPU's");
    }

    #[test]
    fn one_slot_is_stolen_from_the_other_cpu() {
        let mut map = Model::new(Lru::shared(1, 2, BY_SIZE));
        map.update(0, 1);
        map.update(1, 2);
        assert_eq!(map.keys(), [2]);
        map.update(0, 3);
        assert_eq!(map.keys(), [3]);
        map.update(0, 4);
        assert_eq!(map.keys(), [4]);
    }

    #[test]
    fn all_slots_at_once_go_all_at_once() {
        let mut map = Model::new(Lru::shared(
            4,
            2,
            Refill {
                by_size: false,
                ..BY_SIZE
            },
        ));
        for key in 1..=5 {
            map.update(0, key);
        }
        assert_eq!(map.keys(), [5]);
        map.update(1, 6);
        assert_eq!(map.keys(), [5, 6], "a free one of the other CPU is stolen");
    }

    #[test]
    fn slots_come_as_the_kernel_gives_them() {
        let lru = Lru::shared(8, 1, BY_SIZE).expect("memory");
        let take = || lru.take(0, |_| true).expect("a slot");
        // Four at once, the first one found on top.
        assert_eq!([take(), take(), take(), take()], [7, 6, 5, 4]);
        lru.give_back(5);
        assert_eq!(take(), 5, "held back for the CPU that took it");
        assert_eq!([take(), take(), take(), take()], [3, 2, 1, 0]);
    }
}
