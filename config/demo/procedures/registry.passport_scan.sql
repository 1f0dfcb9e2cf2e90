SELECT 1 AS "@return" WHERE NOT EXISTS (SELECT 1 FROM passport WHERE number = @number);

UPDATE passport SET scan = @scan WHERE number = @number;
