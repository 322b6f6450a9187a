use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};

use pingora_core::protocols::Stream;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Says one word to whoever comes.
struct Greeter;

#[async_trait]
impl ServerApp for Greeter {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
        let _ = stream.write_all(b"hello").await;
        None
    }
}

fn read(mut stream: TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A service that greets on two addresses, as it runs, with the server's life.
async fn running() -> (Lifecycle, [SocketAddr; 2], tokio::task::JoinHandle<()>) {
    let (lifecycle, sockets, open) = (Lifecycle::new(), Sockets::default(), Arc::default());
    let bound = [(); 2].map(|()| Bound::new("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap());
    let addresses = [0, 1].map(|index: usize| bound[index].address().tcp().unwrap());
    let mut listening = Listening::new("test", Greeter, bound.into(), (1, &open), (&sockets, &lifecycle));
    let (ready, mut is_ready) = watch::channel(false);
    let service = tokio::spawn(async move {
        let (_never, shutdown) = watch::channel(false);
        listening.start_service(None, shutdown, 1, ServiceReadyNotifier::new(ready)).await;
    });
    lifecycle.attend();
    is_ready.wait_for(|ready| *ready).await.unwrap();
    assert!(lifecycle.advance(State::Ready));
    (lifecycle, addresses, service)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_accepts_again_however_soon_the_sockets_are_taken_back() {
    let (lifecycle, addresses, service) = running().await;
    for round in 0..4_000 {
        assert!(lifecycle.advance(State::HandingOver));
        // At once, in the midst of closing, and when it has closed.
        (0..round % 100 * 20).for_each(|_| std::hint::spin_loop());
        if round % 100 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(lifecycle.advance(State::Ready));
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lifecycle.failure(), None, "round {round}");
    }
    for address in addresses {
        let greeted = tokio::task::spawn_blocking(move || read(TcpStream::connect(address)?)).await.unwrap();
        assert_eq!((greeted.unwrap().as_str(), lifecycle.failure()), ("hello", None));
    }
    assert!(lifecycle.advance(State::Draining));
    timeout(PATIENCE, service).await.unwrap().unwrap();
    assert!(TcpStream::connect(addresses[0]).is_err() && lifecycle.failure().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_while_a_server_takes_back_is_served_though_it_stops_then() {
    let (lifecycle, addresses, service) = running().await;
    assert!(lifecycle.advance(State::HandingOver));
    // Most likely it has closed by then; if not, this one is served at once.
    sleep(Duration::from_millis(50)).await;
    let waiting = TcpStream::connect(addresses[0]).unwrap();
    assert!(lifecycle.advance(State::Ready) && lifecycle.advance(State::Draining));
    timeout(PATIENCE, service).await.unwrap().unwrap();
    assert_eq!(tokio::task::spawn_blocking(move || read(waiting)).await.unwrap().unwrap(), "hello");
}

#[test]
fn what_is_accepted_sends_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_tcp_nodelay(&listener, true).unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(listener.accept().unwrap().0.nodelay().unwrap());
}
