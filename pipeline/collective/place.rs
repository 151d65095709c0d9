//! Which rank a process is, and where the ranks meet, as torchrun or Slurm's srun tell it.

use std::path::PathBuf;
use std::time::Duration;

/// Ports from which a Slurm job takes its own: below those that systems hand out.
const PORTS: std::ops::Range<u64> = 15_000..30_000;

/// Where a process stands among the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// This process, from 0.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
    /// How many of them share this machine, where it is told.
    pub here: Option<usize>,
    /// Which of those this one is, from 0, where it is told.
    pub local: Option<usize>,
    /// Where they meet.
    pub meeting: Meeting,
    /// The network interface to use, instead of the one that leads to the meeting.
    pub interface: Option<String>,
    /// Which start of the same job this is, where one store serves several.
    pub attempt: String,
    /// How long to wait for the others.
    pub patience: Duration,
}

/// Where ranks meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meeting {
    /// At a port.
    Port {
        /// Host name or address.
        host: String,
        /// The port.
        port: u16,
        /// Whether rank 0 listens there; otherwise something outside does, such as torchrun.
        rank_0_listens: bool,
    },
    /// At a file that all see and that was not there before.
    File(PathBuf),
}

impl std::fmt::Display for Meeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Port { host, port, .. } => write!(f, "{host}:{port}"),
            Self::File(path) => write!(f, "`{}`", path.display()),
        }
    }
}

/// Why an environment does not tell the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One of several variables that belong together.
    #[error("{there} is set and {missing} is not: set both, or neither")]
    Missing {
        /// What is set.
        there: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A variable with another value than a number, or one out of range.
    #[error("{name} is `{found}`: expected {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A job whose nodes are not told.
    #[error(
        "no MASTER_ADDR, and no node of this job can be found by its name: set MASTER_ADDR to the machine of rank 0"
    )]
    NoAddress,
}

/// The names of the variables of one starter.
struct Names {
    rank: &'static str,
    ranks: &'static str,
}

const TORCHRUN: Names = Names { rank: "RANK", ranks: "WORLD_SIZE" };
const SLURM: Names = Names { rank: "SLURM_PROCID", ranks: "SLURM_NTASKS" };

/// How to look a variable up, and whether a host's name is known.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Whether a host's name leads to an address.
    pub resolves: &'a dyn Fn(&str) -> bool,
}

impl Place {
    /// The place that RANK, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` tell, or else those of Slurm within a step of srun;
    /// none for a process by itself. A `MASTER_ADDR` that begins with `file:` is a file.
    pub fn find(around: Surroundings<'_>, patience: Duration) -> Result<Option<Self>, Error> {
        let names = match (get(around, TORCHRUN.rank), get(around, "SLURM_STEP_ID")) {
            (None, Some(_)) if get(around, SLURM.rank).is_some() => SLURM,
            (None, _) if get(around, TORCHRUN.ranks).is_none() => return Ok(None),
            _ => TORCHRUN,
        };
        let ranks = required(around, names.ranks, names.rank)?;
        let rank = required(around, names.rank, names.ranks)?;
        if ranks == 0 {
            return Err(value(names.ranks, "0", "a number above 0"));
        }
        if rank >= ranks {
            return Err(value(
                names.rank,
                &rank.to_string(),
                &format!("a number below {}, {ranks}", names.ranks),
            ));
        }
        if ranks == 1 {
            return Ok(None);
        }
        Ok(Some(Self {
            rank,
            ranks,
            here: here(around),
            local: local(around),
            meeting: meeting(around)?,
            interface: interface(around),
            attempt: attempt(around),
            patience,
        }))
    }
}

/// A variable that is set to something.
fn get(around: Surroundings<'_>, name: &str) -> Option<String> {
    (around.variable)(name).filter(|value| !value.is_empty())
}

fn required(around: Surroundings<'_>, name: &'static str, there: &'static str) -> Result<usize, Error> {
    let found = get(around, name).ok_or(Error::Missing { there, missing: name })?;
    found.parse().map_err(|_| value(name, &found, "a number"))
}

fn value(name: &'static str, found: &str, expected: &str) -> Error {
    Error::Value { name, found: found.to_owned(), expected: expected.to_owned() }
}

/// Ranks on this machine. Slurm writes `2(x3),1` for three nodes with two tasks and one with one: the first counts.
fn here(around: Surroundings<'_>) -> Option<usize> {
    let told = get(around, "LOCAL_WORLD_SIZE").or_else(|| get(around, "SLURM_STEP_TASKS_PER_NODE"))?;
    told.split(['(', ',']).next()?.parse().ok().filter(|here| *here > 0)
}

/// This rank among those on this machine.
fn local(around: Surroundings<'_>) -> Option<usize> {
    get(around, "LOCAL_RANK").or_else(|| get(around, "SLURM_LOCALID"))?.parse().ok()
}

fn interface(around: Surroundings<'_>) -> Option<String> {
    get(around, "GLOO_SOCKET_IFNAME")?.split(',').next().map(str::to_owned)
}

/// torchrun starts again with the same store.
fn attempt(around: Surroundings<'_>) -> String {
    let part = |name| get(around, name).unwrap_or_default();
    format!("genomill/{}/{}", part("TORCHELASTIC_RUN_ID"), part("TORCHELASTIC_RESTART_COUNT"))
}

fn meeting(around: Surroundings<'_>) -> Result<Meeting, Error> {
    let told = get(around, "MASTER_ADDR");
    if let Some(path) = told.as_deref().and_then(|told| told.strip_prefix("file:")) {
        return Ok(Meeting::File(path.strip_prefix("//").unwrap_or(path).into()));
    }
    let host = told.or_else(|| first_node(around)).ok_or(Error::NoAddress)?;
    let rank_0_listens = get(around, "TORCHELASTIC_USE_AGENT_STORE").is_none_or(|agent| agent != "True");
    Ok(Meeting::Port { host, port: port(around)?, rank_0_listens })
}

/// The first node of the step, or where srun was started if no such name is known.
fn first_node(around: Surroundings<'_>) -> Option<String> {
    let listed =
        ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"].into_iter().filter_map(|name| get(around, name));
    let first = listed.map(|list| first_of(&list)).find(|host| (around.resolves)(host));
    first.or_else(|| get(around, "SLURM_LAUNCH_NODE_IPADDR"))
}

/// The first of nodes as Slurm lists them: `n[07-09,12],m1` is n07 first.
fn first_of(list: &str) -> String {
    let Some((prefix, rest)) = list.split_once('[').filter(|(prefix, _)| !prefix.contains(',')) else {
        return list.split(',').next().unwrap_or(list).to_owned();
    };
    let number = rest.split(['-', ',', ']']).next().unwrap_or("");
    let suffix = rest.split_once(']').map_or("", |(_, suffix)| suffix.split([',', '[']).next().unwrap_or(""));
    [prefix, number, suffix].concat()
}

fn port(around: Surroundings<'_>) -> Result<u16, Error> {
    if let Some(found) = get(around, "MASTER_PORT") {
        return found.parse().map_err(|_| value("MASTER_PORT", &found, "a number from 0 to 65535"));
    }
    let number = |name| get(around, name).and_then(|text| text.parse::<u64>().ok());
    let job =
        number("SLURM_JOB_ID").ok_or(Error::Missing { there: "MASTER_ADDR", missing: "MASTER_PORT" })?;
    let own = job.wrapping_mul(31).wrapping_add(number("SLURM_STEP_ID").unwrap_or(0));
    let port = PORTS.start + own % (PORTS.end - PORTS.start);
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}

/// `rank 1`, or `ranks 1, 3`; of many the first ones.
pub(crate) fn list(ranks: &[usize]) -> String {
    const SHOWN: usize = 8;
    let shown = ranks.iter().take(SHOWN).map(usize::to_string).collect::<Vec<_>>().join(", ");
    match ranks.len() {
        1 => format!("rank {shown}"),
        all if all > SHOWN => format!("ranks {shown} and {} more", all - SHOWN),
        _ => format!("ranks {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)], known: &[&str]) -> Result<Option<Place>, Error> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let resolves = |host: &str| known.contains(&host);
        Place::find(Surroundings { variable: &variable, resolves: &resolves }, Duration::from_secs(1))
    }

    type Variables<'a> = &'a [(&'a str, &'a str)];

    /// Rank, number of ranks and meeting.
    type Found<'a> = Option<(usize, usize, &'a str)>;

    #[test]
    fn places_are_told_by_torchrun_or_by_slurm() {
        let torchrun =
            [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "29500")];
        let step =
            [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "2")];
        let nodes = [("SLURM_JOB_NODELIST", "gpu[07-09]"), ("SLURM_LAUNCH_NODE_IPADDR", "10.0.0.9")];
        let in_step = [&step[..], &nodes].concat();
        let both = [&torchrun[..], &in_step].concat();
        let file = [("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "file:///x/y")];
        let cases: [(Variables<'_>, &[&str], Found<'_>); 8] = [
            (&[], &[], None),
            (&torchrun, &[], Some((1, 2, "10.0.0.1:29500"))),
            (&in_step, &["gpu07"], Some((3, 4, "gpu07:15219"))),
            (&in_step, &[], Some((3, 4, "10.0.0.9:15219"))),
            (&both, &["gpu07"], Some((1, 2, "10.0.0.1:29500"))),
            // A batch script is no step: its only process is not one of the tasks.
            (&in_step[..3], &["gpu07"], None),
            (&[("RANK", "0"), ("WORLD_SIZE", "1")], &[], None),
            (&file, &[], Some((0, 2, "`/x/y`"))),
        ];
        for (variables, known, expected) in cases {
            let found = find(variables, known).unwrap();
            let meeting = found.as_ref().map(|place| place.meeting.to_string()).unwrap_or_default();
            let found = found.map(|place| (place.rank, place.ranks, meeting.as_str()));
            assert_eq!(found, expected, "{variables:?}");
        }
        let listens =
            |more: &[(&str, &str)]| match find(&[&torchrun, more].concat(), &[]).unwrap().unwrap().meeting {
                Meeting::Port { rank_0_listens, .. } => rank_0_listens,
                Meeting::File(_) => false,
            };
        assert!(listens(&[]) && !listens(&[("TORCHELASTIC_USE_AGENT_STORE", "True")]));
        let here = |name, told| find(&[&torchrun[..], &[(name, told)]].concat(), &[]).unwrap().unwrap().here;
        assert_eq!(here("LOCAL_WORLD_SIZE", "4"), Some(4));
        assert_eq!(here("SLURM_STEP_TASKS_PER_NODE", "2(x3),1"), Some(2));
        let local = |name| find(&[&torchrun[..], &[(name, "3")]].concat(), &[]).unwrap().unwrap().local;
        assert_eq!(["LOCAL_RANK", "SLURM_LOCALID", "RANK_HERE"].map(local), [Some(3), Some(3), None]);
    }

    #[test]
    fn what_does_not_tell_a_place_is_refused() {
        let cases: [(Variables<'_>, &str); 6] = [
            (&[("RANK", "0")], "RANK is set and WORLD_SIZE is not"),
            (&[("WORLD_SIZE", "2")], "WORLD_SIZE is set and RANK is not"),
            (&[("RANK", "2"), ("WORLD_SIZE", "2")], "RANK is `2`: expected a number below WORLD_SIZE, 2"),
            (&[("RANK", "a"), ("WORLD_SIZE", "2")], "RANK is `a`: expected a number"),
            (&[("RANK", "0"), ("WORLD_SIZE", "2")], "set MASTER_ADDR to the machine of rank 0"),
            (
                &[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "99999")],
                "MASTER_PORT is `99999`: expected a number from 0 to 65535",
            ),
        ];
        for (variables, expected) in cases {
            let error = find(variables, &[]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_first_node_of_a_list() {
        for (list, expected) in [
            ("n1", "n1"),
            ("n1,n2", "n1"),
            ("n[1-4,7]", "n1"),
            ("n[07,9]-ib,m2", "n07-ib"),
            ("a,n[1-2]", "a"),
            ("r[3-4]c[1-2]", "r3c"),
        ] {
            assert_eq!(first_of(list), expected, "{list}");
        }
    }
}
