//! A backend that speaks HTTP/2 by the rules, without TLS, and answers as a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;

/// A listener that lives as long as this.
pub(crate) struct Http2Backend {
    pub(crate) address: SocketAddr,
    /// How many connections it has had.
    connections: Arc<AtomicUsize>,
    /// How many it has now.
    open: Arc<AtomicUsize>,
    _runtime: Runtime,
}

/// A request, and the means to answer it.
pub(crate) struct Call {
    pub(crate) request: Request<RecvStream>,
    pub(crate) respond: SendResponse<Bytes>,
    /// The number of its connection, from 0 on.
    pub(crate) connection: usize,
    /// What becomes of the connection.
    pub(crate) order: UnboundedSender<Order>,
}

/// What a connection is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// To take no more requests, and to say so.
    Leave,
    /// To break.
    Break,
}

impl Call {
    /// Answers at once with this body.
    pub(crate) fn answer(mut self, body: &'static str) {
        let mut stream = self.respond.send_response(Response::new(()), body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
        }
    }
}

impl Http2Backend {
    /// One with these settings. Each request is served by a task of its own.
    pub(crate) fn new<F: Future<Output = ()> + Send + 'static>(
        settings: Builder,
        serve: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        Http2Backend::with(settings, None, serve)
    }

    /// The same over TLS, where there is an `acceptor`.
    pub(crate) fn with<F: Future<Output = ()> + Send + 'static>(
        settings: Builder,
        acceptor: Option<TlsAcceptor>,
        serve: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (all, now) = (Arc::clone(&connections), Arc::clone(&open));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (serve, settings, now) = (serve.clone(), settings.clone(), Arc::clone(&now));
                let (number, acceptor) = (all.fetch_add(1, Ordering::SeqCst), acceptor.clone());
                tokio::spawn(async move {
                    now.fetch_add(1, Ordering::SeqCst);
                    tcp.set_nodelay(true).unwrap();
                    match acceptor {
                        None => serve_connection(tcp, settings, number, serve).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                serve_connection(tls, settings, number, serve).await;
                            }
                        }
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Http2Backend { address, connections, open, _runtime: runtime }
    }

    /// One that answers each request with `ok`.
    pub(crate) fn ok() -> Self {
        Http2Backend::new(Builder::new(), |call| async { call.answer("ok") })
    }

    /// How many connections it has had.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many connections it has.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn serve_connection<F: Future<Output = ()> + Send + 'static>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    settings: Builder,
    number: usize,
    serve: impl Fn(Call) -> F,
) {
    let (order, mut orders) = unbounded_channel();
    let Ok(mut connection) = settings.handshake(io).await else { return };
    loop {
        tokio::select! {
            next = connection.accept() => {
                let Some(Ok((request, respond))) = next else { return };
                let order = order.clone();
                tokio::spawn(serve(Call { request, respond, connection: number, order }));
            }
            Some(order) = orders.recv() => match order {
                Order::Leave => connection.graceful_shutdown(),
                Order::Break => return,
            }
        }
    }
}
