// An operator at the page, in a real browser. What has to happen outside the browser is asked for by a line, and told to
// be done by a line: `want load user1` and `done`.

const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");
const fs = require("node:fs");

const [base, token, viewer, place, browserPath, shots] = process.argv.slice(2);
const installed = createRequire(path.join(place, "/"));
const { chromium } = installed("playwright-core");
const axe = fs.readFileSync(installed.resolve("axe-core/axe.min.js"), "utf8");

const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function want(what) {
  console.log(`want ${what}`);
  const { value } = await answers.next();
  if (value === undefined) throw new Error(`nobody answers: ${what}`);
  return value;
}

const complaints = [];
/** Whether the API is away on purpose, so that a browser says of each request that it failed. */
let away = false;

function watch(page) {
  page.on("pageerror", (error) => complaints.push(`${error.stack}`));
  page.on("console", (message) => {
    const text = message.text();
    // A browser says this of each answer that is no success. Those are told on the page, and looked at there.
    const asks = message.location().url.endsWith("/recommend?window=1h");
    const told = !asks && /the server responded with a status of (401|403|404|409|412|422)/.test(text);
    const lost = away && /net::ERR_/.test(text);
    if (message.type() === "error" && !told && !lost) complaints.push(`${text} at ${message.location().url}`);
  });
  return page;
}

async function fits(page, what) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (over > 0) complaints.push(`${what}: ${over} pixels wider than the window`);
}

/** What axe finds wrong. It is put in by the debugger, since the page runs nothing from elsewhere. */
async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run());
  for (const { id, help, nodes } of violations) complaints.push(`${what}: ${id}: ${help}: ${nodes.map((node) => node.html).join(" ")}`);
}

async function shoot(page, name) {
  if (shots) await page.screenshot({ path: path.join(shots, `${name}.png`) });
}

async function main() {
  const browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light" });
  const page = watch(await context.newPage());
  page.setDefaultTimeout(30000);
  const link = (name) => page.getByRole("navigation").getByRole("link", { name });
  const press = (name) => page.getByRole("button", { name, exact: true }).click();
  const dialog = page.getByRole("dialog");
  const row = (name) => page.getByRole("row").filter({ has: page.getByRole("rowheader", { name }) });
  const cell = async (of, at) => Number((await of.getByRole("cell").nth(at).textContent()).replace(/[^0-9.]/g, ""));
  const until = async (what, holds) => {
    const end = Date.now() + 30000;
    while (!(await holds())) {
      if (Date.now() > end) throw new Error(`never: ${what}`);
      await page.waitForTimeout(100);
    }
  };

  // A wrong token is told at its field, the right one lets in.
  await page.goto(base);
  await accessible(page, "sign in");
  await page.getByLabel("Token").fill("wrong");
  await press("Sign in");
  await page.getByText("The token is wrong").waitFor();
  await page.getByLabel("Token").fill(token);
  await press("Sign in");
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.getByText("live", { exact: true }).waitFor();
  if (page.url().includes(token)) complaints.push("the token is in the address");

  // An address that is refused becomes a client by one click.
  await want("load -");
  await link("Clients").click();
  await page.getByRole("button", { name: "Make client: 127.0.0.1" }).first().click();
  await dialog.getByLabel("Capacity, tokens").fill("1000000");
  await dialog.getByLabel("Rate, tokens a second").fill("1000000");
  await dialog.getByRole("button", { name: "Create" }).click();
  await until("the address is let in as a client", async () => (await row("127.0.0.1").count()) === 1 && (await cell(row("127.0.0.1"), 3)) > 100);

  // What the API says stands at the fields.
  await press("New client");
  await dialog.getByLabel("Name", { exact: true }).fill("a b");
  await dialog.getByLabel("Capacity, tokens").fill("many");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.getByText("must be 1 to 128 characters").waitFor();
  await dialog.getByText("must be a whole number").first().waitFor();
  await accessible(page, "a form with mistakes");
  // So does what another client has.
  await dialog.getByLabel("Capacity, tokens").fill("5");
  await dialog.getByLabel("Name", { exact: true }).fill("127.0.0.1");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.locator(".field", { hasText: "Client 127.0.0.1 exists already" }).getByLabel("Name", { exact: true }).waitFor();
  await dialog.getByLabel("Name", { exact: true }).fill("taken");
  await dialog.getByLabel("Addresses and networks").fill("127.0.0.1");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.locator(".field", { hasText: "is that of client 127.0.0.1" }).getByLabel("Addresses and networks").waitFor();
  await dialog.getByLabel("Addresses and networks").fill("");
  // A client is made, and is limited under load.
  await dialog.getByLabel("Name", { exact: true }).fill("user1");
  await dialog.getByLabel("Capacity, tokens").fill("5");
  await dialog.getByLabel("Rate, tokens a second").fill("2");
  await dialog.getByRole("button", { name: "Create" }).click();
  await want("load user1");
  await until("user1 is limited", async () => (await row("user1").count()) === 1 && (await cell(row("user1"), 4)) > 20);
  await page.getByLabel("Sort by").selectOption("limited");
  await until("user1 goes first", async () => (await page.getByRole("rowheader").first().textContent()).startsWith("user1"));
  await accessible(page, "clients");
  await shoot(page, "clients-1280");

  // A raised limit lets it through.
  await page.getByRole("rowheader").getByRole("link", { name: "user1" }).click();
  await page.getByRole("heading", { name: "user1", level: 1 }).waitFor();
  await until("its refusals are listed", async () => (await page.getByRole("cell", { name: "429" }).count()) > 0);
  await accessible(page, "a client");
  await shoot(page, "client-1280");
  await press("Edit");
  await dialog.getByLabel("Capacity, tokens").fill("500000");
  await dialog.getByLabel("Rate, tokens a second").fill("500000");
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByText("2 update").waitFor();
  const allowed = await want("allowed user1");
  await until("it is let in", async () => Number(await want("allowed user1")) > Number(allowed) + 200);

  // A candidate is tried and promoted, and all of it rolled back.
  await press("Try a candidate");
  await dialog.getByLabel("Capacity, tokens").fill("7");
  await dialog.getByLabel("Rate, tokens a second").fill("0");
  await dialog.getByRole("button", { name: "Try" }).click();
  await dialog.getByText("must be").waitFor();
  await dialog.getByLabel("Rate, tokens a second").fill("3");
  await dialog.getByRole("button", { name: "Try" }).click();
  await press("Promote candidate");
  await dialog.getByRole("button", { name: "Promote" }).click();
  await page.getByText("7 + 3/s").first().waitFor();
  await press("Roll back to version 1");
  await dialog.getByText("capacity").waitFor();
  await dialog.getByRole("button", { name: "Roll back" }).click();
  await page.getByText("rollback").waitFor();
  await until("it is what it was", async () => (await want("limit user1")) === "5 2");

  // Explained step by step.
  await link("Explain").click();
  await page.getByLabel("Headers, one a line").fill("X-Api-Key: user1");
  await press("Explain");
  await page.getByRole("link", { name: "user1" }).waitFor();
  await page.getByRole("listitem").first().waitFor();
  await accessible(page, "explain");
  await shoot(page, "explain-1280");

  // A backend is drained, and its traffic goes.
  await link("Backends").click();
  const backend = await want("backend");
  await page.getByRole("button", { name: `Drain: ${backend}` }).click();
  await dialog.getByRole("button", { name: "Drain" }).click();
  await row(backend).getByText("drain", { exact: true }).waitFor();
  await until("nothing goes there", async () => (await want("idle")) === "yes");
  await page.waitForTimeout(1500);
  await accessible(page, "backends");
  await shoot(page, "backends-1280");
  await page.getByRole("button", { name: `Up: ${backend}` }).click();
  await dialog.getByRole("button", { name: "Up" }).click();
  await until("requests go there again", async () => (await want("idle")) === "no");

  // Another tab shares the stream of this one.
  await link("Overview").click();
  const other = watch(await context.newPage());
  let streams = 0;
  other.on("request", (request) => (streams += request.url().endsWith("/live") ? 1 : 0));
  await other.goto(base);
  await other.getByLabel("Token").fill(token);
  await other.getByRole("button", { name: "Sign in" }).click();
  await other.getByText("live", { exact: true }).waitFor();
  if (streams) complaints.push(`the second tab has ${streams} streams of its own`);
  await other.close();

  // A viewer sees everything and can change nothing.
  const looking = watch(await (await browser.newContext()).newPage());
  await looking.goto(base);
  await looking.getByLabel("Token").fill(viewer);
  await looking.getByRole("button", { name: "Sign in" }).click();
  await looking.getByText("Only to look at").waitFor();
  await looking.getByRole("navigation").getByRole("link", { name: "Clients" }).click();
  await looking.getByRole("rowheader").getByRole("link", { name: "user1" }).waitFor();
  if (await looking.getByRole("button", { name: "New client" }).isEnabled()) complaints.push("a viewer may make clients");
  await looking.context().close();

  // The binary is upgraded with the page open, and a stop waits for no page.
  await page.bringToFront();
  away = true;
  await want("upgrade");
  await page.getByText("live", { exact: true }).waitFor();
  await page.waitForTimeout(2500);
  await page.getByText("live", { exact: true }).waitFor();
  await want("stop");
  await page.getByText("connection lost").waitFor();
  await page.getByText("The admin API cannot be reached").waitFor();
  await shoot(page, "lost-1280");
  await want("start");
  await page.getByText("live", { exact: true }).waitFor();
  await page.getByText("The admin API cannot be reached").waitFor({ state: "hidden" });
  away = false;
  await want("load user1");
  await page.waitForTimeout(3000);
  await accessible(page, "overview");
  await shoot(page, "overview-1280");

  // All parts fit into little room, in the dark, too.
  await page.emulateMedia({ colorScheme: "dark" });
  await page.setViewportSize({ width: 400, height: 800 });
  for (const part of ["", "backends", "clients", "client/user1", "explain"]) {
    await page.evaluate((to) => (location.hash = `#/${to}`), part);
    await page.getByRole("heading", { level: 1 }).waitFor();
    await page.waitForTimeout(1500);
    const name = part.split("/")[0] || "overview";
    await fits(page, `${name} at 400 px`);
    await accessible(page, `${name} at 400 px`);
    await shoot(page, `${name}-400`);
  }

  // By keys alone: the second link of the navigation, from the top of the page.
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.evaluate(() => (location.hash = "#/"));
  await page.reload();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  for (let tabs = 0; tabs < 3; tabs++) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Backends" }).waitFor();
  await browser.close();
}

main().then(
  () => {
    complaints.forEach((complaint) => console.log(`wrong ${complaint.replaceAll("\n", " ")}`));
    console.log("end");
    process.exit(0);
  },
  (error) => {
    console.log(`wrong ${String(error.stack).replaceAll("\n", " ")}`);
    complaints.forEach((complaint) => console.log(`wrong ${complaint.replaceAll("\n", " ")}`));
    console.log("end");
    process.exit(0);
  },
);
