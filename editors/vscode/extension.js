// Starts `regraft lsp` and leaves everything else to it.
const { commands, window, workspace } = require("vscode");
const { LanguageClient, TransportKind } = require("vscode-languageclient/node");

let client;

async function start() {
  const command = workspace.getConfiguration("regraft").get("path", "regraft");
  const run = { command, args: ["lsp"], transport: TransportKind.stdio };
  const documents = { documentSelector: [{ language: "graft" }] };
  client = new LanguageClient("regraft", "regraft", run, documents);
  try {
    await client.start();
  } catch (error) {
    client = undefined;
    const told = `${command} lsp doesn't start: ${error.message}. The setting regraft.path says where the program is.`;
    window.showErrorMessage(told);
  }
}

async function stop() {
  const running = client;
  client = undefined;
  await running?.stop();
}

async function activate(context) {
  const restart = async () => {
    await stop();
    await start();
  };
  context.subscriptions.push(
    commands.registerCommand("regraft.restart", restart),
    workspace.onDidChangeConfiguration((event) => {
      if (event.affectsConfiguration("regraft.path")) restart();
    }),
  );
  await start();
}

module.exports = { activate, deactivate: stop };
