//! tollgate beside nginx and HAProxy.
mod load;
mod parse;
mod process;
mod stop;

fn main() -> stop::Fallible<()> {
    let stop = stop::Stop::on_signals()?;
    let (load, proxy) = process::Cores::allowed()?.split_last(1)?;
    let dir = tempfile::tempdir()?;
    let url = std::env::args().nth(1).unwrap();
    println!("{proxy} {}", proxy.masks());
    let place = load::Place { cores: load.first(2), directory: dir.path().to_owned() };
    let wrk = load::Wrk { connections: 64, seconds: 2, headers: vec![], script: String::new() };
    println!("{:?}", wrk.run(&stop, &place, &url)?);
    let h2 = load::H2load { connections: 64, streams: 1, http1: true, rate: Some(5000), seconds: 2 };
    println!("{:?}", h2.run(&stop, &place, &url)?);
    Ok(())
}
