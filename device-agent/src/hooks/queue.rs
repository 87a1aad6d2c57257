//! Runs hooks one moment after the other, beside everything else that the agent does.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::{HookContext, Hooks, Moment, Verdict};

/// Hooks at work in a task of their own. Ends, and kills the hook that runs, when it is dropped.
#[derive(Debug)]
pub struct HookQueue {
    jobs: mpsc::Sender<Job>,
    verdicts: mpsc::Receiver<(Question, Verdict)>,
    task: JoinHandle<()>,
    questions: u64,
}

/// Pairs a question with its verdict. Never the same twice, so that a verdict for a session that is no more is
/// told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(u64);

#[derive(Debug)]
struct Job {
    moment: Moment,
    context: HookContext,
    /// Who waits for the verdict.
    question: Option<Question>,
}

/// Moments that wait for their hooks. A deployment passes a dozen.
const JOBS_MAX: usize = 64;

impl HookQueue {
    /// Starts the task.
    #[must_use]
    pub fn start(hooks: Hooks) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
        let (answers, verdicts) = mpsc::channel(JOBS_MAX);
        let task = tokio::spawn(async move {
            while let Some(Job { moment, context, question }) = waiting.recv().await {
                let verdict = hooks.run(moment, &context).await;
                if let Some(question) = question
                    && answers.send((question, verdict)).await.is_err()
                {
                    return;
                }
            }
        });
        Self { jobs, verdicts, task, questions: 0 }
    }

    /// Tells the hooks of `moment`. Where too many moments wait already this one is left out.
    pub fn tell(&self, moment: Moment, context: HookContext) {
        if self.jobs.try_send(Job { moment, context, question: None }).is_err() {
            warn!(%moment, "hooks are too slow, a moment was left out");
        }
    }

    /// Asks the hooks of `moment`; the verdict comes from [`HookQueue::next`]. `None` where too many moments wait
    /// already: ask again later.
    pub fn ask(&mut self, moment: Moment, context: HookContext) -> Option<Question> {
        self.questions += 1;
        let question = Question(self.questions);
        self.jobs.try_send(Job { moment, context, question: Some(question) }).ok()?;
        Some(question)
    }

    /// The next verdict that was asked for. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Question, Verdict)> {
        self.verdicts.recv().await
    }
}

impl Drop for HookQueue {
    fn drop(&mut self) {
        self.task.abort();
    }
}
