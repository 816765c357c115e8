//! The random runs of `mapemu conform`, against other implementations of BPF maps that live in a process.
//!
//! Prints the table of `docs/scoreboard.md`: the share of runs in which an answer differs from the kernel's. The kernel is the
//! running one where this process may use it, else mapemu itself, which then has no column.
//!
//! Only what all have is asked: the element commands on one map, on one CPU at a time, with pointers that point somewhere.

mod call;
mod kbpf;
mod mocks;

use std::env;

use mapemu::conform::{Chance, Family, Generator, Op};
use mapemu::env::LINUX_6_18_44;
use mapemu::trace::{Answer, Emulated, Engine, Header, Options, Running, World, answer_or_name};

use call::{Answered, Call, Spec};

/// The types that are asked for.
const FAMILIES: [&str; 10] = [
    "hash",
    "array",
    "percpu_hash",
    "percpu_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "queue",
    "stack",
    "bloom_filter",
];

/// A map of somebody else.
pub trait Rival {
    /// From here on, everything happens on that CPU.
    fn set_cpu(&mut self, _cpu: u32) {}

    /// One command of bpf(2).
    fn answer(&mut self, call: &Call) -> Answered;
}

/// Makes a map, or says why not.
type Make = fn(&Spec) -> Result<Box<dyn Rival>, String>;

const RIVALS: [(&str, Make); 3] = [
    ("kbpf-basic 0.6.0", kbpf::make),
    ("careful mock", mocks::careful),
    ("plain mock", mocks::plain),
];

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Lookups, updates (with the flags that each tutorial has), deletions, pushes and pops, on maps without flags.
    Everyday,
    /// Every element command with every flag, walks too.
    Everything,
}

/// Everybody: mapemu, then the rivals.
const ALL: usize = 1 + RIVALS.len();

/// What came of the runs of one type.
#[derive(Clone, Copy, Default)]
struct Score {
    runs: u32,
    answers: u32,
    /// Runs in which something differed, of each.
    runs_differ: [u32; ALL],
    /// It has no such maps.
    missing: [bool; ALL],
    /// Answers that differed; after the first of a run, others may follow from it.
    answers_differ: [u32; ALL],
}

/// What is run.
#[derive(Clone, Copy)]
struct Plan {
    asks: Asks,
    steps: usize,
    /// There is a running kernel to compare with.
    running: bool,
    /// Tells of the first difference of each run.
    why: bool,
}

fn main() {
    let number = |name: &str, default: usize| {
        let mut args = env::args().skip_while(|arg| arg != name);
        let text = args.nth(1);
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let running = Running::new().inspect_err(|why| eprintln!("{why}"));
    let plan = Plan {
        asks: Asks::Everyday,
        steps: number("--steps", 100),
        running: running.is_ok(),
        why: env::args().any(|arg| arg == "--why"),
    };
    let runs = number("--runs", 200);
    // A rival that panics has given an answer, too.
    std::panic::set_hook(Box::new(|_| {}));
    for (asks, title) in [
        (Asks::Everyday, "everyday use"),
        (Asks::Everything, "all element commands"),
    ] {
        let plan = Plan { asks, ..plan };
        let rivals = RIVALS.map(|rival| rival.0).join(" | ");
        println!("| {title} | runs | mapemu | {rivals} |");
        println!("| --- | --- |{}", " --- |".repeat(ALL));
        for name in FAMILIES {
            let family = Family::named(name).expect("a family");
            println!("{}", of_family(family, runs, plan).line(name, plan));
        }
        println!();
    }
}

impl Score {
    fn line(&self, name: &str, plan: Plan) -> String {
        let percent = |part: u32, of: u32| 100.0 * f64::from(part) / f64::from(of.max(1));
        let mut columns: [String; ALL] = std::array::from_fn(|who| {
            if self.missing[who] {
                return "has none".to_owned();
            }
            let runs = percent(self.runs_differ[who], self.runs);
            let answers = percent(self.answers_differ[who], self.answers);
            format!("{runs:.0} % / {answers:.1} %")
        });
        if !plan.running {
            columns[0] = "-".to_owned();
        }
        let (name, columns) = (name.to_uppercase(), columns.join(" | "));
        format!("| {name} | {} | {columns} |", self.runs)
    }
}

fn of_family(family: &Family, runs: usize, plan: Plan) -> Score {
    let mut chance = Chance::new(1);
    let mut score = Score::default();
    while (score.runs as usize) < runs {
        run(family, chance.number(), plan, &mut score);
    }
    score
}

fn emulated() -> Emulated {
    let header = Header {
        name: String::new(),
        about: String::new(),
        release: None,
        cpus: Some(2),
        json: serde_json::Map::new(),
    };
    Emulated::new(&header, &Options::default()).expect("2 CPUs")
}

fn answer(engine: &mut Engine<'_>, op: &Op) -> serde_json::Value {
    match answer_or_name(engine, &op.0, false).expect("a request") {
        Answer::Got(answer) => answer,
        Answer::Allowed | Answer::ToCome(_) => panic!("an element command"),
    }
}

/// One run; none if its map is not asked for.
fn run(family: &Family, seed: u64, plan: Plan, score: &mut Score) {
    let mut chance = Chance::new(seed);
    let mut generator = Generator::new(family, chance.number(), 2, LINUX_6_18_44);
    // More than one operation: BTF comes before.
    let [create] = generator.setup() else { return };
    let create = create.clone();
    let Some(spec) = Spec::of(&create) else {
        return;
    };
    let everything = plan.asks == Asks::Everything;
    if !everything && spec.limits_access() {
        return;
    }
    let mut kernel: Box<dyn World> = if plan.running {
        Box::new(Running::new().expect("it was there a moment ago"))
    } else {
        Box::new(emulated())
    };
    let mut own = emulated();
    let (mut kernel, mut own) = (Engine::new(&mut *kernel), Engine::new(&mut own));
    let made = answer(&mut kernel, &create);
    let mut differ = [0; ALL];
    differ[0] += u32::from(made != answer(&mut own, &create));
    let mut rivals = RIVALS.map(|(_, make)| make(&spec));
    for (rival, missing) in rivals.iter().zip(&mut score.missing[1..]) {
        *missing |= rival.is_err() && made.get("err").is_none();
    }
    score.answers += 1;
    for _ in 0..plan.steps {
        let op = generator.op(chance.number());
        if let Some(cpu) = call::set_cpu(&op) {
            answer(&mut kernel, &op);
            answer(&mut own, &op);
            let rivals = rivals.iter_mut().flatten();
            rivals.for_each(|rival| rival.set_cpu(cpu));
            continue;
        }
        let call = Call::of(&op, &spec).filter(|call| everything || call.is_everyday(&spec));
        let Some(call) = call else { continue };
        let right = answer(&mut kernel, &op);
        generator.answered(&op, &right);
        score.answers += 1;
        differ[0] += u32::from(right != answer(&mut own, &op));
        let right = call::answered(&right, &spec);
        for (number, (rival, differ)) in rivals.iter_mut().zip(&mut differ[1..]).enumerate() {
            let Ok(rival) = rival else { continue };
            let answer = rival.answer(&call);
            if answer != right {
                if plan.why && *differ == 0 {
                    let name = RIVALS[number].0;
                    eprintln!(
                        "{} {name}: {call:?}: {right:?}, not {answer:?}",
                        family.name
                    );
                }
                *differ += 1;
            }
        }
    }
    score.runs += 1;
    for who in 0..ALL {
        score.runs_differ[who] += u32::from(differ[who] > 0);
        score.answers_differ[who] += differ[who];
    }
}
