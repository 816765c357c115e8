//! New traces beside the recordings: every answer that was recorded has to be given again.

use std::collections::BTreeMap;

use mapemu::cli::recorded;
use mapemu::trace::{Line, Trace, answers_match};

use crate::{Scenario, say};

/// Wrong answers of one scenario that are shown.
const SHOWN: usize = 3;

/// Whether a release gives the answers that were recorded of it. Scenarios that were not recorded then do not count.
pub fn with_recordings(
    release: &str,
    scenarios: &[Scenario],
    traces: &BTreeMap<String, Vec<u8>>,
) -> Result<bool, String> {
    let recorded = recorded()
        .iter()
        .find(|recorded| recorded.release == release);
    let recorded = recorded.ok_or_else(|| format!("there are no recordings of {release}"))?;
    let all = recorded
        .families()
        .flat_map(|family| recorded.traces(family));
    let old: BTreeMap<String, Vec<u8>> = all.collect();
    let mut all = Count::default();
    let mut missing = 0;
    for (name, _) in scenarios {
        let Some(old) = old.get(name) else {
            continue;
        };
        let Some(new) = traces.get(name) else {
            missing += 1;
            continue;
        };
        let read = |text: &[u8]| Trace::parse(text).map_err(|broken| format!("{name}:{broken}"));
        let counted = compare(release, name, &read(old)?, &read(new)?);
        all.same += counted.same;
        all.other += counted.other;
        all.left_out += counted.left_out;
    }
    say(&format!(
        "{release}: {} answers as recorded, {} others, {} not asked again, {missing} scenarios not recorded",
        all.same, all.other, all.left_out
    ));
    Ok(all.other == 0 && missing == 0)
}

/// Steps, by what came of them.
#[derive(Default)]
struct Count {
    same: usize,
    other: usize,
    /// That were not asked again: `mapemu record` does not ask for large maps.
    left_out: usize,
}

/// Compares step by step. What the recording leaves out is passed over.
fn compare(release: &str, name: &str, old: &Trace, new: &Trace) -> Count {
    let mut count = Count::default();
    let mut rest = new.lines.as_slice();
    for line in old.lines.iter().filter(|line| !is_configuration(line)) {
        let at = rest.iter().position(|again| again.request == line.request);
        let (Some(at), Some(recorded)) = (at, &line.recorded) else {
            count.left_out += 1;
            continue;
        };
        let answer = rest[at].recorded.as_ref();
        rest = &rest[at + 1..];
        if answer.is_some_and(|answer| answers_match(recorded, answer)) {
            count.same += 1;
            continue;
        }
        count.other += 1;
        if count.other <= SHOWN {
            let (request, answer) = (request_text(line), answer.map(ToString::to_string));
            say(&format!(
                "{release}/{name}:{}: {request} / {recorded} / {}",
                line.number,
                answer.unwrap_or_default()
            ));
        }
    }
    count
}

/// The most CPUs that a kernel was built for, of those that were recorded.
const CPUS_BUILT_FOR: u64 = 256;

/// Cpumaps have as many elements as the kernel was built for CPUs: that is no matter of the release.
fn is_configuration(line: &Line) -> bool {
    let request = &line.request;
    let is_cpumap = request.get("type").is_some_and(|own| own == "cpumap");
    let size = request.get("max_entries").and_then(|size| size.as_u64());
    is_cpumap && size.is_some_and(|size| size > CPUS_BUILT_FOR)
}

/// A request as text.
fn request_text(line: &Line) -> String {
    let fields: Vec<String> = line
        .request
        .iter()
        .map(|(field, value)| format!("{field:?}:{value}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}
