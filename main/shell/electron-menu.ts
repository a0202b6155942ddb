/** The menu of the list's window. What a page carries out goes to it as `app.command`. */
import { Menu, type MenuItemConstructorOptions } from 'electron';

export function setMenu(command: (name: string) => void, development: boolean): void {
  const item = (label: string, name: string, accelerator?: string): MenuItemConstructorOptions => ({
    label,
    accelerator,
    click: () => command(name),
  });
  const mac = process.platform === 'darwin';
  const template: MenuItemConstructorOptions[] = [
    ...(mac ? [{ role: 'appMenu' as const }] : []),
    {
      label: '&File',
      submenu: [
        item('&New virtual machine ...', 'new-vm', 'CmdOrCtrl+N'),
        { type: 'separator' },
        item('&Preferences', 'preferences', 'CmdOrCtrl+,'),
        { type: 'separator' },
        mac ? { role: 'close' } : { role: 'quit' },
      ],
    },
    { role: 'editMenu' },
    {
      label: '&View',
      submenu: [
        item('Command &palette', 'palette', 'CmdOrCtrl+K'),
        { type: 'separator' },
        { role: 'resetZoom' },
        { role: 'zoomIn' },
        { role: 'zoomOut' },
        { role: 'togglefullscreen' },
        ...(development
          ? [{ type: 'separator' as const }, { role: 'reload' as const }, { role: 'toggleDevTools' as const }]
          : []),
      ],
    },
    { role: 'windowMenu' },
    { label: '&Help', submenu: [item('&Keyboard shortcuts', 'shortcuts'), item('&About Vivarium', 'about')] },
  ];
  Menu.setApplicationMenu(Menu.buildFromTemplate(template));
}
