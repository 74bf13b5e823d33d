const ws = new WebSocket('wss://api.agent-orchestration-ops.com/v1/ws');

// Authentication
ws.onopen = function() {
  ws.send(JSON.stringify({
    type: 'auth',
    token: 'YOUR_API_KEY'
  }));

  // Subscribe to specific agent events
  ws.send(JSON.stringify({
     type: 'subscribe',
     channel: 'agent_events',
     agent_id: 'agent_123'
  }));

  // Subscribe to system-wide events
  ws.send(JSON.stringify({
     type: 'subscribe',
     channel: 'system_events'
  }));
};

ws.onmessage = function(event) {
  const data = JSON.parse(event.data);

switch(data.type) {
  case 'agent_status_change':
    console.log('Agent status changed:', data.payload);
    break;
  case 'task_completed':
    console.log('Task completed:', data.payload);
    break;
  case 'system_alert':
    console.log('System alert:', data.payload);
    break;
}
};
