//! The one remote procedure of the cluster: a coordinator leads a worker over a stream in each
//! direction.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{StdError, http};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::node::Node;
use super::wire::{Command, Report};
use super::worker;

/// The path of the procedure.
pub(super) const PATH: &str = "/balter.cluster.v1.Worker/Lead";

/// Reports carry histograms: some kilobytes for each transaction, a hundred at most.
const LONGEST_REPORT: usize = 64 << 20;

/// Commands are small, but for the arguments of a scenario.
const LONGEST_COMMAND: usize = 1 << 20;

/// Messages that wait to be sent over one stream.
const QUEUE: usize = 16;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The worker's side, as a service for the router of the node, which has seen to it that who asks
/// may.
#[derive(Clone)]
pub(crate) struct WorkerService(pub(crate) Node);

impl<B> Service<http::Request<B>> for WorkerService
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let node = self.0.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Report, Command>::default();
            let mut server = tonic::server::Grpc::new(codec)
                .max_decoding_message_size(LONGEST_COMMAND)
                .max_encoding_message_size(LONGEST_REPORT);
            Ok(server.streaming(Lead(node), request).await)
        })
    }
}

struct Lead(Node);

impl tonic::server::StreamingService<Command> for Lead {
    type Response = Report;
    type ResponseStream = ReceiverStream<Result<Report, Status>>;
    type Future = Boxed<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Command>>) -> Self::Future {
        let node = self.0.clone();
        Box::pin(async move {
            let (reports, stream) = mpsc::channel(QUEUE);
            tokio::spawn(worker::serve(node, request.into_inner(), reports));
            Ok(Response::new(ReceiverStream::new(stream)))
        })
    }
}

/// The coordinator's side: a connection to a worker.
///
/// # Errors
/// Why it could not be made.
pub(crate) async fn connect(
    endpoint: Endpoint,
    token: Option<&str>,
) -> Result<(mpsc::Sender<Command>, Streaming<Report>), String> {
    let channel = endpoint.connect().await.map_err(|error| causes(&error))?;
    lead(channel, token).await.map_err(|status| status.message().to_owned())
}

async fn lead(
    channel: Channel,
    token: Option<&str>,
) -> Result<(mpsc::Sender<Command>, Streaming<Report>), Status> {
    let mut client = tonic::client::Grpc::new(channel)
        .max_decoding_message_size(LONGEST_REPORT)
        .max_encoding_message_size(LONGEST_COMMAND);
    client.ready().await.map_err(|error| Status::unavailable(causes(&error)))?;
    let (commands, stream) = mpsc::channel(QUEUE);
    let mut request = Request::new(ReceiverStream::new(stream));
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Status::invalid_argument("the token has characters that no header has"))?;
        request.metadata_mut().insert("authorization", value);
    }
    let path = http::uri::PathAndQuery::from_static(PATH);
    let codec = ProstCodec::<Command, Report>::default();
    let response = client.streaming(request, path, codec).await?;
    Ok((commands, response.into_inner()))
}

/// An error with what caused it: alone it says only "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
