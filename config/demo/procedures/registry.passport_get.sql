SELECT number, document, ueln, issuer, issued, slaughter, scan FROM passport WHERE number = @number
