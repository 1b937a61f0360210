//! The answers of a stream, a line each.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame};
use hyper::body::Bytes;
use prost_reflect::MessageDescriptor;
use tonic::Status;

use crate::json::call::Answers;
use crate::json::{refusal, translate};

/// A body of one `{"result": …}` for each answer, and one `{"error": …}` if they end in an error.
pub(super) struct Results {
    first: Option<Bytes>,
    /// None after an error.
    answers: Option<Answers>,
    kind: MessageDescriptor,
}

impl Results {
    /// `first`, and then the others, all messages of this kind.
    pub(super) fn new(first: Option<Bytes>, answers: Answers, kind: MessageDescriptor) -> Self {
        Self { first, answers: Some(answers), kind }
    }

    fn line(&mut self, answer: Result<Bytes, Status>) -> Bytes {
        let text = answer.and_then(|message| translate::to_json(&self.kind, message));
        match text {
            Ok(text) => [b"{\"result\":", text.as_slice(), b"}\n"].concat().into(),
            Err(status) => {
                self.answers = None;
                refusal::in_stream(&status).into()
            }
        }
    }
}

impl Body for Results {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let answer = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => match &mut self.answers {
                Some(answers) => std::task::ready!(answers.poll_next(context)),
                None => None,
            },
        };
        Poll::Ready(answer.map(|answer| Ok(Frame::data(self.line(answer)))))
    }
}
