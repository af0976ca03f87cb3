<#
.SYNOPSIS
Makes Bambu Studio and OrcaSlicer on Windows trust the certificate authority of a PandaProxy.

.DESCRIPTION
The authority goes into each slicer's printer.cer. Get it on the proxy with: sudo pandaproxy ca > CA.pem
Quit the slicer first, and start it again afterwards. The slicers' folders below "Program Files" can be changed by an
administrator only: start PowerShell with "Run as administrator" if this script says so.

The file as it was is kept beside it as printer.cer.before-pandaproxy. Every other certificate in it stays as it is, and
the new file is read back before it replaces the old one. An update of the slicer replaces printer.cer: run this again
after it. If Windows refuses to run scripts: powershell -ExecutionPolicy Bypass -File trust.ps1 CA.pem

Ends with 0 if all is done or there is nothing to do, 1 if a file could not be changed or lacks the authority, 2 for wrong
usage.

.PARAMETER Authority
The authority's file in PEM, or - for standard input.

.PARAMETER From
HOST or HOST:PORT of a running proxy to fetch the authority from by TLS (port 8883 unless given). Needs -Sha256.

.PARAMETER Sha256
The authority's SHA-256, as the proxy prints it. Another authority is refused. Several, separated by commas, where the
file has certificates of a printer as well: one for each.

.PARAMETER Bundle
Change this printer.cer, or those below this folder. There is no search then.

.PARAMETER KeepOthers
Keep the authorities of other PandaProxys. Without it they are removed as outdated.

.PARAMETER Check
Change nothing; end with 1 if a slicer lacks the authority.

.PARAMETER Remove
Remove every PandaProxy authority, and what was added with it.

.PARAMETER DryRun
Say what would be changed, and change nothing.

.EXAMPLE
.\trust.ps1 CA.pem

.EXAMPLE
.\trust.ps1 -From 192.168.1.20 -Sha256 5F3A...
#>
[CmdletBinding()]
param(
    [Parameter(Position = 0)][string]$Authority,
    [string]$From,
    [string[]]$Sha256 = @(),
    [string[]]$Bundle = @(),
    [switch]$KeepOthers,
    [switch]$Check,
    [switch]$Remove,
    [switch]$DryRun
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

# What stands before each certificate that is added beside an authority, so that -Remove finds it: the line that
# "pandaproxy ca" prints there, or the first of these where it has none.
$Mark = '# added by trust.sh of PandaProxy'
$Marks = '# (added by trust\.sh of PandaProxy|PandaProxy: printer [ -~]*)'
# One byte is one character, so that what is not changed stays byte for byte.
$Bytes = [Text.Encoding]::GetEncoding(28591)

function Stop-Wrong([string]$Message) {
    [Console]::Error.WriteLine("trust.ps1: $Message")
    [Console]::Error.WriteLine('Get-Help .\trust.ps1 -Detailed lists the options')
    exit 2
}

function Stop-Failed([string]$Message) {
    [Console]::Error.WriteLine("trust.ps1: $Message")
    exit 1
}

function Get-Sha256([byte[]]$Data) {
    $hash = [Security.Cryptography.SHA256]::Create()
    try { return -join ($hash.ComputeHash($Data) | ForEach-Object { $_.ToString('x2') }) }
    finally { $hash.Dispose() }
}

# Takes a PEM text apart: each certificate with the text before it, and the text after the last one (Block is $null).
# A byte order mark is dropped, and two certificates that share a line, because a newline was missing between them, are
# separated: slicers read neither of those as they are.
function Split-Pem([string]$Text) {
    if ($Text.StartsWith([string][char]0xEF + [char]0xBB + [char]0xBF)) { $Text = $Text.Substring(3) }
    $Text = $Text.Replace('-----END CERTIFICATE----------BEGIN CERTIFICATE-----',
        "-----END CERTIFICATE-----`n-----BEGIN CERTIFICATE-----")
    $pattern = '(?ms)^-----BEGIN CERTIFICATE-----[^\n]*\n(.*?)^-----END CERTIFICATE-----\r?\n?'
    $at = 0
    foreach ($match in [regex]::Matches($Text, $pattern)) {
        $sum = ''
        $name = ''
        try {
            $der = [Convert]::FromBase64String(($match.Groups[1].Value -replace '\s', ''))
            $certificate = New-Object Security.Cryptography.X509Certificates.X509Certificate2 -ArgumentList @(, $der)
            $sum = Get-Sha256 $certificate.RawData
            $name = $certificate.Subject
        } catch { $sum = '' }
        [pscustomobject]@{
            Before = $Text.Substring($at, $match.Index - $at)
            Block  = $match.Value
            Sum    = $sum
            Name   = $name
        }
        $at = $match.Index + $match.Length
    }
    [pscustomobject]@{ Before = $Text.Substring($at); Block = $null; Sum = ''; Name = '' }
}

function Get-Certificates([string]$Text) {
    return @(Split-Pem $Text | Where-Object { $null -ne $_.Block })
}

function Test-Ours($Entry) {
    return $Entry.Name -cmatch '^CN=PandaProxy CA [0-9a-f]{8}$'
}

function Test-Marked($Entry) {
    return @($Entry.Before -split '\r?\n' | Where-Object { $_ -cmatch "^$Marks$" }).Count -gt 0
}

# The mark in the text before a certificate, or the usual one.
function Get-Mark($Entry) {
    $found = @($Entry.Before -split '\r?\n' | Where-Object { $_ -cmatch "^$Marks$" })
    if ($found.Count -gt 0) { return $found[-1] }
    return $Mark
}

# The authority as a running proxy sends it in the TLS handshake. Nothing is trusted by this: its SHA-256 decides.
function Get-Sent([string]$Address, [string[]]$Wanted) {
    $name, $port = $Address -split ':', 2
    if (-not $port) { $port = '8883' }
    $client = New-Object Net.Sockets.TcpClient
    $script:sent = New-Object Collections.ArrayList
    try {
        if (-not $client.ConnectAsync($name, [int]$port).Wait(10000)) { Stop-Failed "$Address does not answer" }
        $client.ReceiveTimeout = 10000
        $client.SendTimeout = 10000
        $look = [Net.Security.RemoteCertificateValidationCallback] {
            param($Stream, $Certificate, $Chain, $Errors)
            foreach ($one in $Chain.ChainPolicy.ExtraStore) { [void]$script:sent.Add($one.RawData) }
            foreach ($one in $Chain.ChainElements) { [void]$script:sent.Add($one.Certificate.RawData) }
            return $true
        }
        $raw = $client.GetStream()
        $tls = New-Object Net.Security.SslStream -ArgumentList $raw, $false, $look
        $tls.AuthenticateAsClient($name)
        $tls.Dispose()
    } catch {
        Stop-Failed "${Address}: $($_.Exception.GetBaseException().Message)"
    } finally {
        $client.Dispose()
    }
    foreach ($der in $script:sent) {
        if ($Wanted -contains (Get-Sha256 $der)) {
            $lines = [Convert]::ToBase64String($der) -split '(.{64})' | Where-Object { $_ }
            return "-----BEGIN CERTIFICATE-----`n" + ($lines -join "`n") + "`n-----END CERTIFICATE-----`n"
        }
    }
    Stop-Failed "$Address sends no certificate with this SHA-256; compare it with what 'sudo pandaproxy ca' prints there"
}

# Each printer.cer below the folders that Windows programs are installed in.
function Find-Bundles {
    $folders = @($env:ProgramFiles, ${env:ProgramFiles(x86)}, "$env:LOCALAPPDATA\Programs") |
        Where-Object { $_ -and (Test-Path -LiteralPath $_) }
    foreach ($folder in $folders) {
        Get-ChildItem -LiteralPath $folder -Directory -ErrorAction SilentlyContinue |
            Where-Object { $_.Name -match 'bambu|orca' } |
            ForEach-Object {
                Get-ChildItem -LiteralPath $_.FullName -Recurse -Filter printer.cer -File -ErrorAction SilentlyContinue
            } | ForEach-Object { $_.FullName }
    }
}

# What a file is to be: New (the content), Others (SHA-256 of each certificate that stays untouched), Notes (what
# changes), Here (what of ours stays), Fault (why nothing can be done).
function Get-Plan([string]$Text, $Wanted) {
    $plan = @{ New = ''; Others = @(); Notes = @(); Here = @(); Fault = '' }
    $entries = @(Split-Pem $Text)
    $certificates = @($entries | Where-Object { $null -ne $_.Block })
    if ($certificates.Count -eq 0) {
        $plan.Fault = 'it holds no certificate in PEM; install the slicer again'
        return $plan
    }
    if (@($certificates | Where-Object { -not $_.Sum }).Count -gt 0) {
        $plan.Fault = 'one of its certificates is damaged; install the slicer again'
        return $plan
    }
    $sums = @($Wanted | ForEach-Object { $_.Sum })
    foreach ($entry in $entries) {
        if ($null -eq $entry.Block) {
            $plan.New += $entry.Before
            continue
        }
        $stays = $true
        if (-not (Test-Ours $entry) -and -not (Test-Marked $entry)) {
            $plan.Others += $entry.Sum
        } elseif ($plan.Here -contains $entry.Sum) {
            $plan.Notes += "remove a duplicate of $($entry.Name)"
            $stays = $false
        } elseif ($Remove -or ($sums.Count -gt 0 -and -not $KeepOthers -and $sums -notcontains $entry.Sum)) {
            $plan.Notes += "remove $($entry.Name), SHA-256 $($entry.Sum)"
            $stays = $false
        } else {
            $plan.Here += $entry.Sum
        }
        if ($stays) {
            $plan.New += $entry.Before + $entry.Block
        } else {
            # The text before a certificate stays, but for the mark of one that goes.
            $plan.New += $entry.Before -creplace ('(?m)^' + $Marks + '\r?\n'), ''
        }
    }
    if ($plan.Notes.Count -eq 0 -and $plan.New -cne $Text) {
        $plan.Notes += 'repair a byte order mark, or a newline that is missing between two certificates'
    }
    foreach ($one in $Wanted) {
        if ($plan.Here -contains $one.Sum -or $plan.Others -contains $one.Sum) { continue }
        $plan.Notes += "add $($one.Name)"
        if (-not $plan.New.EndsWith("`n")) { $plan.New += "`n" }
        if (-not (Test-Ours $one)) { $plan.New += "$(Get-Mark $one)`n" }
        $plan.New += $one.Block
    }
    return $plan
}

# Reads the new content back and says what would be wrong with it.
function Get-Faults($Plan, $Wanted) {
    $after = Get-Certificates $Plan.New
    $others = @($after | Where-Object { -not (Test-Ours $_) -and -not (Test-Marked $_) } | ForEach-Object { $_.Sum })
    if (($others -join ' ') -cne ($Plan.Others -join ' ')) { 'other certificates would be changed' }
    if (@($after | Where-Object { -not $_.Sum }).Count -gt 0) { 'a certificate would be damaged' }
    foreach ($one in $Wanted) {
        if (@($after | Where-Object { $_.Sum -eq $one.Sum }).Count -ne 1) {
            'the authority would not be in it exactly once'
        }
    }
}

# Puts the new content in the file's place in one step; the backup first.
function Set-Bundle([string]$File, $Plan) {
    $backup = "$File.before-pandaproxy"
    $temporary = "$File.pandaproxy-new"
    $isPristine = $Plan.Here.Count -eq 0 -and @($Plan.Notes | Where-Object { $_ -like 'remove *' }).Count -eq 0
    # The backup is of the slicer's own file: one that holds nothing of ours replaces an older backup.
    if (-not (Test-Path -LiteralPath $backup) -or $isPristine) {
        Copy-Item -LiteralPath $File -Destination $backup -Force
    }
    $content = $Plan.New
    $was = $null
    if ($Remove) {
        # What -Remove leaves is the backup, but for the newline at the end that was added to it.
        $was = $Bytes.GetString([IO.File]::ReadAllBytes($backup))
        if ("$was`n" -ceq $content) { $content = $was }
    }
    try {
        [IO.File]::WriteAllBytes($temporary, $Bytes.GetBytes($content))
        [IO.File]::Replace($temporary, $File, $null)
    } finally {
        if (Test-Path -LiteralPath $temporary) { Remove-Item -LiteralPath $temporary -Force }
    }
    if ($Remove -and $was -ceq $content) { Remove-Item -LiteralPath $backup -Force }
}

if ($From -and $Authority) { Stop-Wrong 'give a file or -From, not both' }
if ($Check -and $Remove) { Stop-Wrong 'give -Check or -Remove, not both' }
if (-not $Check -and -not $Remove -and -not $From -and -not $Authority) {
    Stop-Wrong 'an authority is needed: a file, - or -From'
}
if ($Remove -and ($From -or $Authority)) { Stop-Wrong '-Remove takes no authority' }
if ($From -and $Sha256.Count -eq 0) {
    Stop-Wrong '-From needs -Sha256: without it another machine could answer with an authority of its own'
}
$expected = @($Sha256 | ForEach-Object { $_ -split ',' } | ForEach-Object { ($_ -replace '[: ]', '').ToLowerInvariant() })
if (@($expected | Where-Object { $_ -cnotmatch '^[0-9a-f]{64}$' }).Count -gt 0) {
    Stop-Wrong '-Sha256 takes 64 hexadecimal digits'
}

$wanted = @()
if ($From -or $Authority) {
    if ($From) {
        $given = Get-Sent $From $expected
    } elseif ($Authority -eq '-') {
        $given = [Console]::In.ReadToEnd()
    } elseif (Test-Path -LiteralPath $Authority -PathType Leaf) {
        $given = $Bytes.GetString([IO.File]::ReadAllBytes((Resolve-Path -LiteralPath $Authority).ProviderPath))
        # PowerShell's own redirection writes UTF-16.
        if ($given.StartsWith([string][char]0xFF + [char]0xFE)) {
            $given = [Text.Encoding]::Unicode.GetString($Bytes.GetBytes($given.Substring(2)))
        }
    } else {
        Stop-Failed "${Authority}: no such file"
    }
    if (-not $given.EndsWith("`n")) { $given += "`n" }
    $wanted = Get-Certificates ($given -replace "`r", '')
    if ($wanted.Count -eq 0) {
        Stop-Failed 'the authority is not PEM: no line begins with "-----BEGIN CERTIFICATE-----"'
    }
    if (@($wanted | Where-Object { -not $_.Sum }).Count -gt 0) { Stop-Failed 'the authority is damaged' }
    if (-not (Test-Ours $wanted[0])) { Stop-Failed "this is no PandaProxy's authority but $($wanted[0].Name)" }
    # Two files of "pandaproxy ca" in one may have the same certificate.
    $all = $wanted
    $wanted = @()
    foreach ($one in $all) {
        if (@($wanted | Where-Object { $_.Sum -eq $one.Sum }).Count -eq 0) { $wanted += $one }
    }
    foreach ($one in $wanted) {
        $what = if (Test-Ours $one) { 'authority' } else { "printer's" }
        Write-Output "${what}: $($one.Name)"
        Write-Output "SHA-256:   $($one.Sum)"
        if ($expected.Count -gt 0 -and $expected -cnotcontains $one.Sum) {
            Stop-Failed 'its SHA-256 is not the one given with -Sha256; nothing was changed'
        }
    }
    if ($expected.Count -eq 0) { Write-Output "  compare this with what 'sudo pandaproxy ca' prints on the proxy" }
}

$files = @()
if ($Bundle.Count -gt 0) {
    foreach ($path in $Bundle) {
        if (Test-Path -LiteralPath $path -PathType Container) {
            $files += @(Get-ChildItem -LiteralPath $path -Recurse -Filter printer.cer -File | ForEach-Object { $_.FullName })
        } elseif (Test-Path -LiteralPath $path -PathType Leaf) {
            $files += (Resolve-Path -LiteralPath $path).ProviderPath
        } else {
            Stop-Failed "${path}: no such file or folder"
        }
    }
} else {
    $files = @(Find-Bundles)
}
if ($files.Count -eq 0) {
    Stop-Failed 'no printer.cer of Bambu Studio or OrcaSlicer was found; name it with -Bundle PATH'
}

$status = 0
foreach ($file in $files) {
    Write-Output $file
    try {
        $old = $Bytes.GetString([IO.File]::ReadAllBytes($file))
    } catch {
        Write-Output "  cannot be read: $($_.Exception.GetBaseException().Message)"
        $status = 1
        continue
    }
    $plan = Get-Plan $old $wanted
    if ($plan.Fault) {
        Write-Output "  $($plan.Fault)"
        $status = 1
        continue
    }
    if ($Check) {
        if ($plan.Notes.Count -gt 0) {
            foreach ($note in $plan.Notes) { Write-Output "  to do: $note" }
            $status = 1
        } elseif ($plan.Here.Count -eq 0) {
            Write-Output '  lacks the authority of a PandaProxy'
            $status = 1
        } else {
            Write-Output '  has the authority'
        }
        continue
    }
    if ($plan.Notes.Count -eq 0) {
        Write-Output '  nothing to do'
        continue
    }
    $faults = @(Get-Faults $plan $wanted)
    if ($faults.Count -gt 0) {
        Write-Output "  left as it is, since the new file would be wrong: $($faults -join '; ')"
        $status = 1
        continue
    }
    foreach ($note in $plan.Notes) {
        if ($DryRun) { Write-Output "  would $note" } else { Write-Output "  $note" }
    }
    if ($DryRun) { continue }
    try {
        Set-Bundle $file $plan
        Write-Output "  done; the $($plan.Others.Count) other certificates are unchanged"
    } catch [UnauthorizedAccessException] {
        Write-Output '  cannot be changed: access denied. Start PowerShell with "Run as administrator" and run this again'
        $status = 1
    } catch {
        Write-Output "  cannot be changed: $($_.Exception.GetBaseException().Message). Quit the slicer and run this again"
        $status = 1
    }
}
if ($status -eq 0 -and -not $Check -and -not $Remove -and -not $DryRun) {
    Write-Output 'Quit the slicer and start it again. An update of the slicer undoes this: run it again then.'
}
exit $status
