//! Runs hooks one moment after the other, beside everything else that the agent does.

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use super::{Answer, HookContext, Hooks, Moment};

/// Hooks at work in a task of their own. Ends, and kills the hook that runs, when it is dropped.
#[derive(Debug)]
pub struct HookQueue {
    jobs: mpsc::Sender<Job>,
    answers: mpsc::Receiver<(Question, Answer)>,
    task: JoinHandle<()>,
    questions: u64,
}

/// Pairs a question with its answer. Never the same twice, so that an answer for a session that is no more is
/// told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question(u64);

#[derive(Debug)]
struct Job {
    moment: Moment,
    context: HookContext,
    /// Who waits for the answer.
    question: Option<Question>,
}

/// Moments that wait for their hooks. A deployment passes a dozen.
const JOBS_MAX: usize = 64;

impl HookQueue {
    /// Starts the task.
    #[must_use]
    pub fn start(hooks: Hooks) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
        let (answered, answers) = mpsc::channel(JOBS_MAX);
        let task = tokio::spawn(async move {
            while let Some(Job { moment, context, question }) = waiting.recv().await {
                let answer = hooks.run(moment, &context).await;
                if let Some(question) = question
                    && answered.send((question, answer)).await.is_err()
                {
                    return;
                }
            }
        });
        Self { jobs, answers, task, questions: 0 }
    }

    /// Tells the hooks of `moment`. Where too many moments wait already this one is left out.
    pub fn tell(&self, moment: Moment, context: HookContext) {
        if self.jobs.try_send(Job { moment, context, question: None }).is_err() {
            warn!(%moment, "hooks are too slow, a moment was left out");
        }
    }

    /// Asks the hooks of `moment`; the answer comes from [`HookQueue::next`]. `None` where too many moments wait
    /// already: ask again later.
    pub fn ask(&mut self, moment: Moment, context: HookContext) -> Option<Question> {
        self.questions += 1;
        let question = Question(self.questions);
        self.jobs.try_send(Job { moment, context, question: Some(question) }).ok()?;
        Some(question)
    }

    /// The next answer that was asked for. Cancel-safe.
    pub async fn next(&mut self) -> Option<(Question, Answer)> {
        self.answers.recv().await
    }
}

impl Drop for HookQueue {
    fn drop(&mut self) {
        self.task.abort();
    }
}
