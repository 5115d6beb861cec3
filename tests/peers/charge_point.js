// A charge point on ocpp-rpc in strict mode: it validates all that the central system sends against the schemas.
// Usage: node charge_point.js ws://host:port identity. Prints a line of JSON after charging and one at the end.
const { RPCClient } = require('ocpp-rpc');

const [endpoint, identity] = process.argv.slice(2);
const problems = [];
const client = new RPCClient({ endpoint, identity, protocols: ['ocpp1.6'], strictMode: true });
client.on('strictValidationFailure', (event) => problems.push(String(event.error)));
client.on('badMessage', (event) => problems.push(String(event.error)));

const commands = [];
let allCommands;
const finished = new Promise((resolve) => { allCommands = resolve; });
for (const action of ['TriggerMessage', 'RemoteStartTransaction', 'RemoteStopTransaction', 'Reset']) {
  client.handle(action, ({ params }) => {
    commands.push({ action, params });
    if (action === 'Reset') setImmediate(allCommands);
    return { status: 'Accepted' };
  });
}

async function main() {
  await client.connect();
  const boot = await client.call('BootNotification', { chargePointVendor: 'Vendor', chargePointModel: 'Model' });
  if (boot.status !== 'Accepted') throw new Error(`boot ${boot.status}`);
  await client.call('Heartbeat', {});
  await client.call('Authorize', { idTag: 'user123' });
  await client.call('StatusNotification', { connectorId: 1, errorCode: 'NoError', status: 'Preparing' });
  const request = { connectorId: 1, idTag: 'user123', meterStart: 1000, timestamp: '2023-12-07T10:15:30Z' };
  const start = await client.call('StartTransaction', request);
  const again = await client.call('StartTransaction', request);
  await client.call('StatusNotification', { connectorId: 1, errorCode: 'NoError', status: 'Charging' });
  await client.call('MeterValues', {
    connectorId: 1,
    transactionId: start.transactionId,
    meterValue: [{
      timestamp: '2023-12-07T10:30:30Z',
      sampledValue: [{ value: '12500' }, { value: '7200', measurand: 'Power.Active.Import', unit: 'W' }],
    }],
  });
  await client.call('DataTransfer', { vendorId: 'unknown' });
  await client.call('StopTransaction', {
    transactionId: start.transactionId, meterStop: 25000, timestamp: '2023-12-07T11:45:30Z',
  });
  console.log(JSON.stringify({ boot, start, again }));
  await finished;
  await client.close();
  console.log(JSON.stringify({ problems, commands }));
}

main().then(() => process.exit(problems.length ? 1 : 0), (error) => {
  console.error(error, problems);
  process.exit(1);
});
