//! What a job runs: a script of the plain shell with the options of `sbatch` at its top. Memory: the script.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::jobs::{Asked, Job, What};
use super::profile::Profile;
use super::{Error, FOLDER, logs};
use crate::TOOL;

/// What all scripts of a submission have in common; paths are absolute.
pub(super) struct Common<'a> {
    /// The site's wishes.
    pub profile: &'a Profile,
    /// The program that submits.
    pub genomill: &'a Path,
    /// The workflow file.
    pub file: &'a Path,
    /// The values given on the command line.
    pub set: &'a [String],
    /// The folder of this workflow's artifacts.
    pub work: &'a Path,
    /// What the token holds.
    pub token: &'a str,
}

/// Time that a job has beyond that of the stage, to begin and to end in.
const GRACE: Duration = Duration::from_mins(3);

/// Seconds before its end at which a job is told.
const NOTICE_SECONDS: u64 = 60;

/// What the file at the root of the work folder's [`FOLDER`] is called by which nodes know it.
pub(super) const TOKEN: &str = "token";

/// The log of an element.
pub(super) fn log(work: &Path, job: &Job, element: u32) -> PathBuf {
    log_folder(work, job).join(log_name(job, &element.to_string()))
}

pub(super) fn log_folder(work: &Path, job: &Job) -> PathBuf {
    match job.stages.as_slice() {
        [] => work.join(FOLDER).join("logs"),
        [stage] => logs(work, stage),
        _ => logs(work, &job.title()),
    }
}

fn log_name(job: &Job, element: &str) -> String {
    match job.what {
        What::Check => "check.log".to_owned(),
        What::Partitions => format!("partitions-{element}.log"),
        What::Whole if job.elements.is_none() => "whole.log".to_owned(),
        What::Whole => format!("whole-{element}.log"),
    }
}

impl Common<'_> {
    /// The script of a job that is called `name`. Makes the folder of its log.
    pub(super) fn script(&self, job: &Job, name: &str) -> Result<String, Error> {
        let options = self.options(job, name)?;
        let options = options.iter().fold(String::new(), |text, option| text + "#SBATCH " + option + "\n");
        let body = if job.what == What::Check { self.check() } else { self.make(job) };
        Ok(format!("#!/bin/sh\n{options}\n{}{body}", self.begin()))
    }

    /// The options of `sbatch`.
    fn options(&self, job: &Job, name: &str) -> Result<Vec<String>, Error> {
        let element = if job.elements.is_some() { "%a" } else { "0" };
        let log = log_folder(self.work, job).join(log_name(job, element));
        if self.work.to_string_lossy().contains(['"', '\'', '%', '\\', '\n']) {
            return Err(Error::Path { path: self.work.to_owned() });
        }
        let mut options = vec![format!("--job-name={name}")];
        if let Some(elements) = &job.elements {
            let at_once = self.profile.at_once.map_or_else(String::new, |most| format!("%{most}"));
            options.push(format!(
                "--array={}{at_once}",
                crate::stage::partition::listed(elements.iter().copied())
            ));
        }
        options.push(format!("--output=\"{}\"", log.display()));
        options.extend(["--open-mode=append", "--requeue", "--kill-on-invalid-dep=yes"].map(str::to_owned));
        options.extend(asks(&job.asked));
        let Profile { partition, account, qos, constraint, .. } = self.profile;
        let site = [("partition", partition), ("account", account), ("qos", qos), ("constraint", constraint)];
        options
            .extend(site.into_iter().filter_map(|(key, value)| Some(format!("--{key}={}", value.as_ref()?))));
        options.extend(self.profile.extra.iter().cloned());
        Ok(options)
    }

    /// Says where it runs, and ends if that node does not see the work folder.
    fn begin(&self) -> String {
        let (work, token) = (quoted(&self.work.to_string_lossy()), self.token);
        let path = quoted(&self.work.join(FOLDER).join(TOKEN).to_string_lossy());
        let mut text = format!(
            "job=${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}} element=${{SLURM_ARRAY_TASK_ID:-0}} node=${{SLURMD_NODENAME:-$(hostname)}}\n\
             echo \"{BEGINS} $job element $element on $node, restart ${{SLURM_RESTART_COUNT:-0}}\"\n\
             finish() {{ echo \"{ENDS} $1\"; exit \"$1\"; }}\n\
             if [ \"$(cat {path} 2>/dev/null)\" != {token} ]; then\n\
             \x20   echo \"node $node does not see the work folder \"{work}\", or sees another: it must lie on a file system that all nodes share\" >&2\n\
             \x20   finish 3\n\
             fi\n"
        );
        for module in &self.profile.modules {
            add(&mut text, format_args!("module load {} || finish 4\n", quoted(module)));
        }
        for line in &self.profile.setup {
            add(&mut text, format_args!("{line}\n"));
        }
        let program =
            self.profile.genomill.clone().unwrap_or_else(|| self.genomill.to_string_lossy().into_owned());
        let container =
            self.profile.container.as_ref().map_or_else(String::new, |container| format!("{container} "));
        // It takes the place of the shell that it is started in, so that a signal to that one reaches it.
        add(&mut text, format_args!("genomill() {{ exec {container}{} \"$@\"; }}\n", quoted(&program)));
        text
    }

    /// Looks at what every other job needs.
    fn check(&self) -> String {
        let folder = quoted(&self.work.join(FOLDER).to_string_lossy());
        format!(
            "version=$(genomill --version) || finish 5\n\
             if [ \"$version\" != {tool} ]; then\n\
             \x20   echo \"node $node has $version, expected {TOOL}\" >&2\n\
             \x20   finish 5\n\
             fi\n\
             touch {folder}/writable || finish 6\n\
             finish 0\n",
            tool = quoted(TOOL)
        )
    }

    /// Makes what the job is for. A notice that time is nearly over, and a request to end, are handed on to genomill.
    fn make(&self, job: &Job) -> String {
        let mut text = String::new();
        if job.stages.len() > 1 {
            let cases = (0..)
                .zip(&job.stages)
                .map(|(at, stage): (u32, _)| format!("{at}) stage={} ;;\n", quoted(stage)));
            add(&mut text, format_args!("case $element in\n{}esac\n", cases.collect::<String>()));
        } else {
            add(&mut text, format_args!("stage={}\n", quoted(job.stage(0).unwrap_or_default())));
        }
        let run = self.run_task(job, "\"$stage\"", &format!("\"$element/{}\"", job.width));
        add(
            &mut text,
            format_args!(
                "genomill {run} &\n\
                 child=$!\n\
                 trap 'echo \"{NEARLY_OVER}\"; kill -USR1 $child' USR1\n\
                 trap 'kill -TERM $child' TERM\n\
                 wait $child\n\
                 status=$?\n\
                 while kill -0 $child 2>/dev/null; do wait $child; status=$?; done\n\
                 finish $status\n"
            ),
        );
        text
    }

    /// The arguments that make what a job is for.
    pub(super) fn run_task(&self, job: &Job, stage: &str, share: &str) -> String {
        let mut run = format!("run-task {} {stage}", quoted(&self.file.to_string_lossy()));
        if job.what == What::Partitions {
            add(&mut run, format_args!(" --share {share}"));
        }
        for value in self.set {
            add(&mut run, format_args!(" --set {}", quoted(value)));
        }
        let all = self.work.parent().unwrap_or(Path::new("."));
        add(
            &mut run,
            format_args!(
                " --work {} --jobs {} --wait {}s --progress plain",
                quoted(&all.to_string_lossy()),
                job.asked.threads,
                self.profile.wait.as_secs()
            ),
        );
        if let Some(time) = job.asked.time {
            add(&mut run, format_args!(" --time {}s", time.as_secs()));
        }
        run
    }
}

/// What a line of a log says at the beginning of a try: the job follows.
pub(super) const BEGINS: &str = "genomill: begins job";

/// The same at its end: the exit code follows.
pub(super) const ENDS: &str = "genomill: ended with";

/// The same when time is nearly over.
pub(super) const NEARLY_OVER: &str = "genomill: told that its time is nearly over";

/// What a job asks of its node, as options.
fn asks(asked: &Asked) -> Vec<String> {
    let mut options = vec![format!("--cpus-per-task={}", asked.threads)];
    options.extend(asked.memory.map(|bytes| format!("--mem={}M", bytes.div_ceil(1 << 20))));
    options.extend((asked.gpus > 0).then(|| format!("--gpus={}", asked.gpus)));
    if let Some(time) = asked.time {
        options.push(format!("--time={}", (time + GRACE).as_secs().div_ceil(60)));
        options.push(format!("--signal=B:USR1@{NOTICE_SECONDS}"));
    }
    options
}

/// A word that the shell takes as it is.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn add(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    text.write_fmt(what).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(what: What, stages: &[&str], elements: Option<Vec<u32>>) -> Job {
        let asked = Asked { threads: 4, memory: Some(3 << 20), gpus: 1, time: Some(Duration::from_secs(61)) };
        let stages = stages.iter().map(|stage| (*stage).to_owned()).collect();
        Job { what, stages, elements, width: 8, partitions: None, after: Vec::new(), asked }
    }

    #[test]
    fn scripts_ask_for_what_the_stage_and_the_site_say() {
        let profile = Profile {
            partition: Some("big".to_owned()),
            extra: vec!["--exclude=n7".to_owned()],
            modules: vec!["cuda/12".to_owned()],
            at_once: std::num::NonZeroU32::new(5),
            container: Some("apptainer exec g.sif".to_owned()),
            ..Profile::default()
        };
        let common = Common {
            profile: &profile,
            genomill: Path::new("/bin/genomill"),
            file: Path::new("/it's/flow.yaml"),
            set: &["a.b='x y'".to_owned()],
            work: Path::new("/my work/flow"),
            token: "abc",
        };
        let text = common.script(&job(What::Partitions, &["tokens"], Some(vec![0, 1, 2, 5])), "n").unwrap();
        for expected in [
            "#SBATCH --array=0-2,5%5\n",
            "#SBATCH --output=\"/my work/flow/.cluster/logs/tokens/partitions-%a.log\"\n",
            "#SBATCH --mem=3M\n",
            "#SBATCH --gpus=1\n",
            "#SBATCH --time=5\n",
            "#SBATCH --partition=big\n#SBATCH --exclude=n7\n",
            "module load 'cuda/12' || finish 4\n",
            "genomill() { exec apptainer exec g.sif '/bin/genomill' \"$@\"; }\n",
            r#"genomill run-task '/it'\''s/flow.yaml' "$stage" --share "$element/8" --set 'a.b='\''x y'\''' --work '/my work' --jobs 4 --wait 120s"#,
            " --time 61s &\n",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let text = common.script(&job(What::Whole, &["a@x=1", "a@x=2"], Some(vec![0, 1])), "n").unwrap();
        assert!(
            text.contains("0) stage='a@x=1' ;;\n1) stage='a@x=2' ;;\n") && !text.contains("--share"),
            "{text}"
        );
        let text = common.script(&job(What::Check, &[], None), "n").unwrap();
        assert!(
            text.contains("touch '/my work/flow/.cluster'/writable") && !text.contains("run-task"),
            "{text}"
        );
        let wrong = Common { work: Path::new("/a%b/flow"), ..common };
        assert!(matches!(wrong.script(&job(What::Check, &[], None), "n"), Err(Error::Path { .. })));
    }
}
